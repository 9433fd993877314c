//! Seam for the simulation: commands go to a server within the process instead of the network.
//! Everything above the connection stays real. It is compiled with the feature `sim` only.

use std::cell::RefCell;
use std::sync::Arc;

use ::redis::{Cmd, PushInfo, RedisResult, Value};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

/// Simulated server, with the network to it.
pub trait SimulatedServer: Send + Sync {
    /// Connects; messages of the channel are sent to `pushes`. Returns the connection's number.
    fn connect(
        &self,
        channel: Option<&str>,
        pushes: mpsc::Sender<PushInfo>,
    ) -> BoxFuture<'static, RedisResult<u64>>;

    /// Runs a command, which is packed as on the network.
    fn query(&self, connection: u64, command: Vec<Vec<u8>>) -> BoxFuture<'static, RedisResult<Value>>;
}

thread_local! {
    static SERVER: RefCell<Option<Arc<dyn SimulatedServer>>> = const { RefCell::new(None) };
}

/// Sets the server that clients of this thread connect to.
pub fn set_server(server: Option<Arc<dyn SimulatedServer>>) {
    SERVER.with_borrow_mut(|slot| *slot = server);
}

/// Returns the server of this thread.
pub(super) fn server() -> Option<Arc<dyn SimulatedServer>> {
    SERVER.with_borrow(Clone::clone)
}

/// Connection to a simulated server.
#[derive(Clone)]
pub(super) struct SimulatedConnection {
    server: Arc<dyn SimulatedServer>,
    number: u64,
}

impl SimulatedConnection {
    /// Connects.
    pub(super) async fn open(
        server: Arc<dyn SimulatedServer>,
        channel: Option<&str>,
        pushes: mpsc::Sender<PushInfo>,
    ) -> RedisResult<Self> {
        let number = server.connect(channel, pushes).await?;
        Ok(Self { server, number })
    }

    /// Runs a command.
    pub(super) async fn query(&self, command: &Cmd) -> RedisResult<Value> {
        let words = command.args_iter().map(|word| match word {
            ::redis::Arg::Simple(word) => word.to_vec(),
            _ => vec![],
        });
        self.server.query(self.number, words.collect()).await
    }
}
