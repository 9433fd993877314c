//! One key's life: issued, checked now and then, suspended and resumed, ended while it is checked,
//! and checked after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::history::{Answer, How, Micros};
use super::world::{Subject, World};
use crate::rig::random::Random;
use crate::rig::talos::{IMPORTED, ISSUED};

/// Time after the bound for which the key is still asked about.
const AFTERWARDS: Duration = Duration::from_millis(400);
/// Path of the API's actors.
const ACTORS: &str = "/v2alpha1/admin/actors";
const ALPHANUMERIC: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

/// Lives a key's life. `lease` is the bound; who is cut off from the database is seldom asked to
/// change anything.
pub async fn live(world: Arc<World>, mut random: Random, lease: Duration, cut_off: Option<usize>) {
    // Spreads the first requests of a run.
    pause(&mut random, 400).await;
    let count = world.instances.len();
    let imported = random.below(6) == 0;
    let writer = |random: &mut Random| match random.below(count) {
        chosen if Some(chosen) == cut_off && random.below(20) > 0 => (chosen + 1) % count,
        chosen => chosen,
    };
    let made_by = writer(&mut random);
    let actor = format!("customer:{}", random.text(ALPHANUMERIC, 12));
    let subject = if imported {
        let raw_key = format!("legacy_{}", random.text(ALPHANUMERIC, 24));
        if random.below(2) == 0 {
            // Somebody asks too early, so it is remembered as unknown.
            world.check(random.below(count), &world.garbage(&raw_key)).await;
        }
        world.import(made_by, &raw_key, &actor).await
    } else {
        world.issue(made_by, &actor).await
    };
    // A key that couldn't be issued in a fault is no violation.
    let Some(subject) = subject else {
        return;
    };
    if random.below(8) == 0 {
        let garbage = world.garbage(&forged(&subject, &mut random));
        for instance in 0..count {
            world.check(instance, &garbage).await;
        }
    }
    // Some instances know the key beforehand, others meet it in the race: in Redis, or in the
    // database.
    for instance in 0..count {
        if random.below(2) == 0 {
            world.check(instance, &subject).await;
        }
    }
    pause(&mut random, 30).await;

    let mut is_settled = true;
    if random.below(4) == 0 {
        let by = [writer(&mut random), writer(&mut random)];
        is_settled = pause_life(&world, &mut random, &subject, (imported, by), lease).await;
    }
    let how = match (imported, random.below(10)) {
        // A successor inherits a suspension that may be in force.
        (false, _) if !is_settled => How::Revoked,
        (false, 0..6) | (true, 0..5) => How::Revoked,
        (false, 6..8) => How::SelfRevoked,
        (false, _) => How::Rotated,
        (true, _) => How::Deleted,
    };
    let ended_by = writer(&mut random);
    let (ended, watching) = watch::channel(None);
    let mut watchers: Vec<_> = (0..count)
        .map(|instance| {
            let (world, subject) = (Arc::clone(&world), subject.clone());
            tokio::spawn(observe(world, subject, instance, watching.clone(), lease, random.split()))
        })
        .collect();
    if random.below(12) == 0 {
        // Several at once, who must not share what one of them read too early.
        let instance = random.below(count);
        watchers.extend((0..3).map(|_| {
            let (world, subject) = (Arc::clone(&world), subject.clone());
            tokio::spawn(press(world, subject, instance, watching.clone()))
        }));
    }
    pause(&mut random, 8).await;
    let successor = world.end(ended_by, &subject, imported, how).await;
    ended.send_replace(Some(world.now()));
    let database_says = random.below(count);
    world.verify(database_says, &subject).await;
    if let Some(successor) = successor {
        for instance in 0..count {
            world.check(instance, &successor).await;
        }
    }
    for watcher in watchers {
        if let Err(error) = watcher.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    world.verify((database_says + 1) % count, &subject).await;
}

/// Suspends a key or its actor and takes that back, while and after which every instance is asked.
/// Returns false if it isn't known what is in force.
async fn pause_life(
    world: &Arc<World>,
    random: &mut Random,
    subject: &Subject,
    (imported, by): (bool, [usize; 2]),
    lease: Duration,
) -> bool {
    let path = match (random.below(2), imported) {
        (0, true) => format!("{IMPORTED}/{}", subject.id),
        (0, false) => format!("{ISSUED}/{}", subject.id),
        _ => format!("{ACTORS}/{}", subject.actor),
    };
    for (is_suspension, by) in [(true, by[0]), (false, by[1])] {
        let (changed, watching) = watch::channel(None);
        let watchers: Vec<_> = (0..world.instances.len())
            .map(|instance| {
                let (world, subject) = (Arc::clone(world), subject.clone());
                let mut random = random.split();
                let mut watching = watching.clone();
                tokio::spawn(async move {
                    let changed_at =
                        check_until(&world, &subject, instance, &mut watching, &mut random).await;
                    let bound = changed_at + micros(lease);
                    while world.now() < bound {
                        world.check(instance, &subject).await;
                        pause(&mut random, 60).await;
                    }
                    world.sleep_until(bound + 1_000 + random.below(100_000) as u64).await;
                    world.check(instance, &subject).await;
                })
            })
            .collect();
        pause(random, 8).await;
        let acknowledged = match is_suspension {
            true => world.suspend(by, subject, &path).await,
            false => world.resume(by, subject, &path).await,
        };
        changed.send_replace(Some(world.now()));
        world.verify(random.below(world.instances.len()), subject).await;
        for watcher in watchers {
            if let Err(error) = watcher.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        if !acknowledged {
            return false;
        }
    }
    true
}

/// Asks one instance about a key until it has changed. Returns when that was.
async fn check_until(
    world: &World,
    subject: &Subject,
    instance: usize,
    changed: &mut watch::Receiver<Option<Micros>>,
    random: &mut Random,
) -> Micros {
    loop {
        world.check(instance, subject).await;
        if let Some(at) = *changed.borrow_and_update() {
            return at;
        }
        tokio::select! {
            () = pause(random, 10) => {}
            _ = changed.changed() => {}
        }
    }
}

/// Asks one instance about a key: closely while it is being ended and until it is refused, now and
/// then until the bound has passed, and once more after that.
async fn observe(
    world: Arc<World>,
    subject: Subject,
    instance: usize,
    mut ended: watch::Receiver<Option<Micros>>,
    lease: Duration,
    mut random: Random,
) {
    // Lets the first lookup of the key fall before, into and after its end.
    pause(&mut random, 20).await;
    let ended_at = check_until(&world, &subject, instance, &mut ended, &mut random).await;
    let bound = ended_at + micros(lease);
    while world.now() < bound && world.check(instance, &subject).await != Answer::Refused {
        // At first so closely that it can be seen how long an announcement takes.
        let most = if world.now() < ended_at + 30_000 { 2 } else { 15 };
        pause(&mut random, most).await;
    }
    for _ in 0..2 {
        let wait = random.below(lease.as_millis() as usize) as u64;
        world.sleep_until((world.now() + wait * 1_000).min(bound)).await;
        world.check(instance, &subject).await;
    }
    world.sleep_until(bound + 1_000 + random.below(micros(AFTERWARDS) as usize) as u64).await;
    world.check(instance, &subject).await;
}

/// Asks for the database's word without a pause, until just after the key's end.
async fn press(world: Arc<World>, subject: Subject, instance: usize, ended: watch::Receiver<Option<Micros>>) {
    while ended.borrow().is_none_or(|at| world.now() < at + 5_000) {
        world.verify(instance, &subject).await;
    }
}

/// Returns a credential that looks like the key's and isn't.
fn forged(subject: &Subject, random: &mut Random) -> String {
    let mut credential = subject.secret.clone().into_bytes();
    let last = credential.len() - 1;
    let at = random.between(last / 2, last);
    credential[at] = if credential[at] == b'x' { b'y' } else { b'x' };
    String::from_utf8_lossy(&credential).into_owned()
}

async fn pause(random: &mut Random, most_millis: usize) {
    tokio::time::sleep(Duration::from_micros(random.below(most_millis * 1_000 + 1) as u64)).await;
}

fn micros(duration: Duration) -> Micros {
    duration.as_micros() as Micros
}
