//! Simulated Redis: a few commands, published messages, a failover that may lose writes, and the
//! network to it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use futures_util::future::BoxFuture;
use talos::redis::simulated::SimulatedServer;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::scheduler;
use crate::world::World;

/// Value with the time at which it expires.
type Stored = (Vec<u8>, u64);

/// One server.
#[derive(Default, Clone)]
struct Server {
    data: BTreeMap<Vec<u8>, Stored>,
    /// Writes in order: a name, and its value or none.
    writes: Vec<(Vec<u8>, Option<Stored>)>,
    is_replica: bool,
}

/// Connection of an instance.
struct Connection {
    instance: usize,
    server: usize,
    channel: Option<Vec<u8>>,
    pushes: mpsc::Sender<PushInfo>,
}

/// Redis, and the ways of the instances to it.
pub struct Redis {
    servers: Vec<Server>,
    /// Server that new connections reach.
    address: usize,
    pub nets: Vec<RedisNet>,
    connections: BTreeMap<u64, Connection>,
    opened: u64,
    /// Values that were overwritten or deleted, for those who write them again.
    old: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The way from an instance to Redis.
#[derive(Debug, Clone)]
pub struct RedisNet {
    /// Time of one way in milliseconds: least, and end.
    pub latency: (u64, u64),
    /// Messages get lost, without an error.
    pub is_silent: bool,
    /// Connections are refused, and open ones were reset.
    pub is_refusing: bool,
    /// Percentage of published messages that get lost.
    pub lost_pushes: u64,
}

/// The way on an ordinary day.
pub const USUAL: RedisNet =
    RedisNet { latency: (0, 2), is_silent: false, is_refusing: false, lost_pushes: 0 };
/// Most old values that are kept.
const MAX_OLD: usize = 200;

impl Redis {
    pub fn new(instances: usize) -> Self {
        Self {
            servers: vec![Server::default()],
            address: 0,
            nets: vec![USUAL; instances],
            connections: BTreeMap::new(),
            opened: 0,
            old: vec![],
        }
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.servers[self.address].data.clear();
    }

    /// Gives the address to a server that lacks the last `lost` writes. The old one becomes a
    /// replica, or goes on for the connections that it has.
    pub fn fail_over(&mut self, lost: usize, goes_on: bool) {
        let old = &mut self.servers[self.address];
        old.is_replica = !goes_on;
        let kept = old.writes.len().saturating_sub(lost);
        let writes = old.writes[..kept].to_vec();
        let mut data = BTreeMap::new();
        for (name, value) in &writes {
            match value {
                Some(value) => data.insert(name.clone(), value.clone()),
                None => data.remove(name),
            };
        }
        self.address = self.servers.len();
        self.servers.push(Server { data, writes, is_replica: false });
    }

    /// Writes old values again, as somebody does who may write and keeps what was there.
    pub fn write_old_again(&mut self, now: u64) {
        for (name, value) in self.old.clone() {
            self.servers[self.address].data.insert(name, (value, now + 60_000_000));
        }
    }

    /// Returns the connections of some instances, which are reset.
    pub fn reset(&mut self, instances: &[usize]) -> Vec<mpsc::Sender<PushInfo>> {
        let is_one = |connection: &Connection| instances.contains(&connection.instance);
        let reset: Vec<u64> =
            self.connections.iter().filter(|(_, one)| is_one(one)).map(|(number, _)| *number).collect();
        reset.iter().filter_map(|number| self.connections.remove(number)).map(|one| one.pushes).collect()
    }

    fn execute(&mut self, connection: u64, command: &[Vec<u8>], now: u64) -> RedisResult<Value> {
        let Some(Connection { server, .. }) = self.connections.get(&connection) else {
            return Err(reset_error());
        };
        let server = &mut self.servers[*server];
        let (word, arguments) = command.split_first().ok_or_else(reset_error)?;
        let get = |server: &Server, name: &Vec<u8>| match server.data.get(name) {
            Some((value, expires)) if *expires > now => Value::BulkString(value.clone()),
            _ => Value::Nil,
        };
        let is_write = matches!(word.as_slice(), b"SET" | b"DEL");
        if is_write && server.is_replica {
            return Err((ErrorKind::Server(ServerErrorKind::ReadOnly), "READONLY", String::new()).into());
        }
        Ok(match (word.as_slice(), arguments) {
            (b"PING", _) => Value::SimpleString("PONG".to_owned()),
            (b"GET", [name]) => get(server, name),
            (b"MGET", names) => Value::Array(names.iter().map(|name| get(server, name)).collect()),
            (b"SET", [name, value, _, millis]) => {
                let millis: u64 = String::from_utf8_lossy(millis).parse().expect("a number");
                self.write(connection, name, Some((value.clone(), now + millis * 1_000)));
                Value::Okay
            }
            (b"DEL", [name]) => {
                self.write(connection, name, None);
                Value::Int(1)
            }
            (b"PUBLISH", _) => Value::Int(1),
            _ => panic!("the simulated Redis can't execute {:?}", String::from_utf8_lossy(word)),
        })
    }

    fn write(&mut self, connection: u64, name: &[u8], value: Option<Stored>) {
        let server = &mut self.servers[self.connections[&connection].server];
        let before = match value.clone() {
            Some(value) => server.data.insert(name.to_vec(), value),
            None => server.data.remove(name),
        };
        server.writes.push((name.to_vec(), value));
        if let Some((before, _)) = before.filter(|_| self.old.len() < MAX_OLD) {
            self.old.push((name.to_vec(), before));
        }
    }

    /// Returns the connections on the same server that listen to a channel.
    fn listeners(&self, connection: u64, channel: &[u8]) -> Vec<(usize, mpsc::Sender<PushInfo>)> {
        let Some(Connection { server, .. }) = self.connections.get(&connection) else {
            return vec![];
        };
        let listens = |one: &&Connection| one.server == *server && one.channel.as_deref() == Some(channel);
        let listeners = self.connections.values().filter(listens);
        listeners.map(|one| (one.instance, one.pushes.clone())).collect()
    }
}

fn reset_error() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection was reset").into()
}

/// Redis as an instance reaches it.
pub struct Client(pub Arc<World>);

/// Sends a message one way.
async fn travel(world: &World, instance: usize) -> RedisResult<()> {
    let (delay, net) = {
        let state = &mut *world.state();
        let net = state.redis.nets[instance].clone();
        (state.random.within(net.latency.0, net.latency.1), net)
    };
    if net.is_silent {
        pending::<()>().await;
    }
    if delay > 0 {
        sleep(Duration::from_millis(delay)).await;
    }
    if net.is_refusing { Err(reset_error()) } else { Ok(()) }
}

impl SimulatedServer for Client {
    fn connect(
        &self,
        channel: Option<&str>,
        pushes: mpsc::Sender<PushInfo>,
    ) -> BoxFuture<'static, RedisResult<u64>> {
        let (world, instance) = (Arc::clone(&self.0), scheduler::current_thread());
        let channel = channel.map(|channel| channel.as_bytes().to_vec());
        Box::pin(async move {
            travel(&world, instance).await?;
            let redis = &mut world.state().redis;
            redis.opened += 1;
            let connection = Connection { instance, server: redis.address, channel, pushes };
            redis.connections.insert(redis.opened, connection);
            Ok(redis.opened)
        })
    }

    fn query(&self, connection: u64, command: Vec<Vec<u8>>) -> BoxFuture<'static, RedisResult<Value>> {
        let (world, instance) = (Arc::clone(&self.0), scheduler::current_thread());
        Box::pin(async move {
            travel(&world, instance).await?;
            let now = world.now();
            let result = world.state().redis.execute(connection, &command, now);
            if let ([word, channel, message], Ok(_)) = (&command[..], &result)
                && word == b"PUBLISH"
            {
                publish(&world, connection, channel, message);
            }
            travel(&world, instance).await?;
            result
        })
    }
}

/// Sends a message to all who listen, some time later.
fn publish(world: &Arc<World>, connection: u64, channel: &[u8], message: &[u8]) {
    let listeners = world.state().redis.listeners(connection, channel);
    for (instance, pushes) in listeners {
        let data = vec![Value::BulkString(channel.to_vec()), Value::BulkString(message.to_vec())];
        let (delay, is_lost) = {
            let state = &mut *world.state();
            let net = state.redis.nets[instance].clone();
            let is_lost = net.is_silent || net.is_refusing || state.random.percent(net.lost_pushes);
            (state.random.within(net.latency.0, net.latency.1), is_lost)
        };
        if is_lost {
            continue;
        }
        let world = Arc::clone(world);
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            push(&world, instance, &pushes, PushInfo { kind: PushKind::Message, data });
        });
    }
}

/// Gives an instance a message.
pub fn push(world: &World, instance: usize, pushes: &mpsc::Sender<PushInfo>, message: PushInfo) {
    if pushes.try_send(message).is_ok() {
        world.scheduler.wake(instance);
    }
}
