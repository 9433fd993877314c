//! The way from an Envoy to its instance on the same machine: Checks by ext_authz, and the stream
//! of the module.

use std::sync::Arc;

use talos_proto::edge::{FromModule, FromServer};

use crate::channel::{Channel, Stream};
use crate::world::World;

/// Stream of a module.
pub type ModuleStream = Stream<FromModule, FromServer>;

/// Arrival at an instance.
pub enum Incoming {
    /// A module connects.
    Stream(Arc<ModuleStream>),
    /// Check by ext_authz about a key, an index of `State::keys`.
    Check(usize),
}

/// The way to one instance.
pub struct Pipe {
    /// Time of one way in milliseconds: least, and end.
    pub latency: (u64, u64),
    /// That of the server's messages, where it is another one.
    pub answer_latency: Option<(u64, u64)>,
    /// Nothing that is sent arrives yet.
    pub is_held: bool,
    /// Present while the instance runs.
    pub listener: Option<Arc<Channel<Incoming>>>,
    /// The last stream.
    pub stream: Option<Arc<ModuleStream>>,
}

/// Time of one way within a machine in milliseconds.
pub const NEAR: (u64, u64) = (0, 2);

impl Default for Pipe {
    fn default() -> Self {
        Self { latency: NEAR, answer_latency: None, is_held: false, listener: None, stream: None }
    }
}

/// Opens a stream to an instance; `None` if nobody listens.
pub fn connect(world: &World, instance: usize) -> Option<Arc<ModuleStream>> {
    let (server, module) = (instance, world.envoy_thread(instance));
    let stream =
        Arc::new(Stream { up: Channel::new(server, instance), down: Channel::new(module, instance) });
    let listener = {
        let pipe = &mut world.state().pipes[instance];
        pipe.stream = Some(Arc::clone(&stream));
        pipe.listener.clone()
    }?;
    listener.send(world, Incoming::Stream(Arc::clone(&stream)));
    Some(stream)
}

/// Changes the way to an instance, and lets what was held arrive.
pub fn change(world: &World, instance: usize, change: impl FnOnce(&mut Pipe)) {
    let (listener, stream) = {
        let pipe = &mut world.state().pipes[instance];
        change(pipe);
        (pipe.listener.clone(), pipe.stream.clone())
    };
    listener.iter().for_each(|listener| listener.wake(world));
    if let Some(stream) = stream {
        stream.up.wake(world);
        stream.down.wake(world);
    }
}
