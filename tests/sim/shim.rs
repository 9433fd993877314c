//! Functions of libc that the test binary defines itself, so that the threads of a simulation see
//! virtual time and seeded entropy. All other threads get what the kernel says.
//!
//! Defined here, these symbols are what the standard library, mio and tokio call. A runtime that
//! has nothing to do waits in `epoll_wait` until its next timer: on a thread of a simulation that
//! gives the turn away, and virtual time goes on.
#![allow(unsafe_code, reason = "symbols of libc can't be defined otherwise")]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_uint, c_void};

use talos::clock::{BootTime, Moment, Timestamp};

use crate::scheduler;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const CLOCK_GETTIME: std::ffi::c_long = 228;
    pub const EPOLL_PWAIT: std::ffi::c_long = 281;
    pub const GETRANDOM: std::ffi::c_long = 318;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const CLOCK_GETTIME: std::ffi::c_long = 113;
    pub const EPOLL_PWAIT: std::ffi::c_long = 22;
    pub const GETRANDOM: std::ffi::c_long = 278;
}

/// Readings of a machine's clocks, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Stands still while the machine is suspended.
    pub monotonic: u64,
    pub boot: u64,
    /// May be set.
    pub wall: i64,
}

thread_local! {
    static READING: Cell<Option<Reading>> = const { Cell::new(None) };
    static ENTROPY: Cell<u64> = const { Cell::new(0) };
}

/// Sets the clocks of this thread; `None` gives it the kernel's.
pub fn set_reading(reading: Option<Reading>) {
    READING.set(reading);
}

/// Sets the seed of this thread's entropy.
pub fn set_entropy(seed: u64) {
    ENTROPY.set(seed);
}

/// Reads the clocks of this thread, for `talos::clock::Clock`.
pub fn moment() -> Moment {
    let reading = READING.get().expect("a thread of a simulation");
    Moment { boot: BootTime::from_micros(reading.boot), wall: Timestamp::from_micros(reading.wall) }
}

/// Reads the clock of this thread that stands still in a suspend, in microseconds.
pub fn monotonic() -> u64 {
    READING.get().expect("a thread of a simulation").monotonic
}

/// Returns the time of this thread's turn; `None` outside of a simulation.
pub fn now() -> Option<u64> {
    READING.get().map(|reading| reading.boot)
}

/// Returns the wall time of the servers, which is right.
pub fn server_wall(boot: u64) -> i64 {
    scheduler::START_WALL + (boot - scheduler::START) as i64
}

fn reading() -> Option<Reading> {
    READING.try_with(Cell::get).ok().flatten()
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Time of libc.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: c_long,
}

/// Reads a clock.
///
/// # Safety
/// `time` points to a writable time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let micros = match (reading(), clock) {
        (Some(reading), 0 | 5) => reading.wall,
        (Some(reading), 1 | 4 | 6) => reading.monotonic as i64,
        (Some(reading), 7) => reading.boot as i64,
        // SAFETY: the arguments are those of the caller.
        _ => return unsafe { syscall(number::CLOCK_GETTIME, c_long::from(clock), time) } as c_int,
    };
    // SAFETY: the caller's promise.
    unsafe {
        (*time).seconds = micros.div_euclid(1_000_000);
        (*time).nanos = micros.rem_euclid(1_000_000) * 1_000;
    }
    0
}

/// Waits for events. Without any, a thread of a simulation sleeps in virtual time.
///
/// # Safety
/// `events` points to `max` writable events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut c_void, max: c_int, timeout: c_int) -> c_int {
    // SAFETY: the arguments are those of the caller; without a mask its size doesn't matter.
    let wait = |timeout: c_int| unsafe {
        let none: *const c_void = std::ptr::null();
        let (epoll, max, timeout) = (c_long::from(epoll), c_long::from(max), c_long::from(timeout));
        syscall(number::EPOLL_PWAIT, epoll, events, max, timeout, none, c_long::from(8_i32)) as c_int
    };
    if reading().is_none() {
        return wait(timeout);
    }
    let ready = wait(0);
    if ready != 0 || timeout == 0 {
        return ready;
    }
    scheduler::sleep(u64::try_from(timeout).ok());
    // Whatever is ready by now is found the next time.
    0
}

/// Fills a buffer with random bytes.
///
/// # Safety
/// `buffer` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    if reading().is_none() {
        // SAFETY: the arguments are those of the caller.
        return unsafe { syscall(number::GETRANDOM, buffer, len, c_long::from(flags)) } as isize;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in bytes.chunks_mut(8) {
        let mut random = crate::random::Random::new(ENTROPY.get());
        let block = random.bits().to_le_bytes();
        ENTROPY.set(random.bits());
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
    len as isize
}
