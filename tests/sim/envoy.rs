//! An Envoy with the accelerator: the real protocol and state of the module, and the clients whose
//! requests it lets pass, or leaves to ext_authz.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use talos::cache::freshness::Mode;
use talos_module::mutants::{self, Mutant};
use talos_module::simulated::Stream;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::history::{Answer, Checked};
use crate::pipe::{Incoming, ModuleStream, connect};
use crate::plan::Visit;
use crate::shim;
use crate::world::World;

/// Time for the server's first message.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at what is to be sent.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Wait before the next try.
const BACKOFF: Duration = Duration::from_secs(1);
/// Time for which requests wait for a process that stands still, in microseconds.
const BACKLOG: u64 = 3_000_000;

/// Runs the Envoy of an instance.
pub async fn run(world: Arc<World>, instance: usize, visits: Vec<Visit>) {
    world.enter();
    let name = world.mutant.map(|mutant| format!("{mutant:?}"));
    mutants::switch_on(Mutant::ALL.into_iter().find(|one| name == Some(format!("{one:?}"))));
    let module = RefCell::new(None);
    tokio::join!(keep_stream(&world, instance, &module), serve(&world, instance, visits, &module));
}

fn clocks() -> (u64, i64) {
    let moment = shim::moment();
    (moment.boot.as_micros(), moment.wall.as_micros())
}

/// Opens a stream, again and again. What came on one is dropped with it.
async fn keep_stream(world: &World, instance: usize, module: &RefCell<Option<Stream>>) {
    loop {
        if let Some(stream) = connect(world, instance) {
            if !mutants::is_on(Mutant::EdgeTwoStreams) || module.borrow().is_none() {
                *module.borrow_mut() = Some(Stream::new(clocks));
            }
            let ended = exchange(world, &stream, module).await;
            world.note(Some(instance), format!("module: {ended}"));
            stream.close(world);
        }
        if !mutants::is_on(Mutant::EdgeTwoStreams) {
            *module.borrow_mut() = None;
        }
        sleep(BACKOFF).await;
    }
}

/// Runs one stream until it ends; returns why.
async fn exchange(world: &World, stream: &ModuleStream, module: &RefCell<Option<Stream>>) -> String {
    let with = || std::cell::RefMut::map(module.borrow_mut(), |module| module.as_mut().expect("a stream"));
    stream.up.send(world, Stream::hello());
    let (opened, mut last_tick) = (world.now(), None::<u64>);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            message = stream.down.next(world) => {
                let Some(message) = message else {
                    return "the stream has ended".to_owned();
                };
                if let Err(error) = with().receive(message) {
                    return error;
                }
            }
            _ = looks.tick() => {
                let now = world.now();
                if !with().has_begun() {
                    if now - opened > CONNECT_TIMEOUT.as_micros() as u64 {
                        return "no answer".to_owned();
                    }
                    continue;
                }
                let every = with().tick_interval().as_micros() as u64;
                let early = LOOK_INTERVAL.as_micros() as u64 / 2;
                if last_tick.is_none_or(|last| now - last + early >= every) {
                    last_tick = Some(now);
                    match with().tick() {
                        Ok(tick) => stream.up.send(world, tick),
                        Err(error) => return error,
                    }
                }
                let asks = with().asks();
                asks.into_iter().for_each(|ask| stream.up.send(world, ask));
            }
        }
    }
}

/// Sends the requests of clients through the module.
async fn serve(world: &World, instance: usize, visits: Vec<Visit>, module: &RefCell<Option<Stream>>) {
    let thread = world.envoy_thread(instance);
    for Visit { at, pick } in visits {
        let now = world.now();
        if at + BACKLOG < now {
            continue;
        }
        sleep(Duration::from_micros(at.saturating_sub(now))).await;
        let (index, key) = {
            let state = world.state();
            let count = state.keys.len();
            if count == 0 {
                continue;
            }
            let young = count - 1 - (pick / 100) as usize % count.min(6);
            let index = match pick % 100 {
                0..40 => state.changed_key,
                40..80 => state.remembered(thread, pick / 100).unwrap_or(young),
                _ => young,
            };
            (index, state.keys[index].clone())
        };
        let passes = module.borrow().as_ref().is_some_and(|module| module.passes(&key.credential));
        if !passes {
            let listener = world.state().pipes[instance].listener.clone();
            if let Some(listener) = listener {
                listener.send(world, Incoming::Check(index));
            }
            continue;
        }
        let at = world.now();
        let state = &mut *world.state();
        state.remember(thread, &key.id);
        state.trace.add(at, Some(instance), format!("module: lets {} pass", &key.id[..8]));
        let answer = Answer::Allowed;
        state.history.checks.push(Checked {
            at,
            instance,
            key: key.id,
            answer,
            mode: Mode::Fresh,
            by_module: true,
        });
    }
    std::future::pending::<()>().await;
}
