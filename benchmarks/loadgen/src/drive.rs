//! One thread of the generator: its connections, its clock, its share of the calls.

mod links;
mod supply;
mod timer;

use crate::bodies::Bodies;
use crate::connection::Manner;
use crate::pace::Pace;
use crate::sockets::Dialer;
use crate::tally::{Tally, Times, Window};
use links::Link;
use mio::{Events, Poll};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use supply::Supply;
use timer::Timer;

/// Of one thread; rates and counts are its share.
#[derive(Clone)]
pub struct Share {
    pub dialer: Dialer,
    pub manner: Arc<Manner>,
    pub connections: usize,
    /// Calls a second (open loop); None: as fast as answers come.
    pub rate: Option<f64>,
    pub poisson: bool,
    pub seed: u64,
    pub warm_ns: u64,
    /// Counted time; or ...
    pub counted_ns: u64,
    /// ... counted calls.
    pub calls: Option<u64>,
    /// Replies are PredictReplies.
    pub reads_replies: bool,
}

/// Read by whoever shows progress while the run goes on.
pub struct Progress {
    pub ended: AtomicU64,
    pub ended_badly: AtomicU64,
    /// Calls a connection may have open, where the server said so.
    pub streams_allowed: AtomicU64,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            ended: AtomicU64::new(0),
            ended_badly: AtomicU64::new(0),
            streams_allowed: AtomicU64::new(u64::MAX),
        }
    }
}

const CONNECT_NS_MAX: u64 = 2_000_000_000;
const SWEEP_NS: u64 = 10_000_000;
const PART_NS_MAX: u64 = 1_000_000_000;
const BUFFER_BYTES: usize = 256 << 10;
const EVENTS: usize = 256;

pub struct Drive<'a> {
    share: Share,
    bodies: Bodies,
    progress: &'a Progress,
    poll: Poll,
    events: Events,
    timer: Timer,
    links: Vec<Option<Link>>,
    supply: Supply,
    tally: Tally,
    buffer: Vec<u8>,
    born: Instant,
    /// The clock started: calls are made.
    begun: bool,
    /// Which connection gets the next call of an open loop.
    next: usize,
    reconnect_ns: u64,
    /// Why the newest connection that failed did.
    trouble: String,
}

impl<'a> Drive<'a> {
    pub fn new(share: Share, bodies: Bodies, progress: &'a Progress) -> io::Result<Drive<'a>> {
        let poll = Poll::new()?;
        let timer = Timer::new(&poll)?;
        let nothing = Window {
            from_ns: u64::MAX,
            to_ns: u64::MAX,
            by_end: true,
        };
        Ok(Drive {
            bodies,
            progress,
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            links: Vec::new(),
            supply: Supply::none(),
            tally: Tally::new(nothing, share.reads_replies),
            buffer: vec![0; BUFFER_BYTES],
            born: Instant::now(),
            begun: false,
            next: 0,
            reconnect_ns: 0,
            trouble: String::new(),
            share,
        })
    }

    /// Connect, wait for the other threads, ask, wait for the last answers. Returns the tally and
    /// how long was counted, ns.
    pub fn run(mut self, together: &Barrier) -> Result<(Tally, u64), String> {
        let connected = self.connect();
        together.wait();
        connected?;
        let (from_ns, end_ns) = self.begin();
        let mut sweep_ns = 0;
        loop {
            let now_ns = self.now_ns();
            if now_ns >= sweep_ns {
                self.sweep(now_ns);
                self.fill_all(now_ns);
                sweep_ns = now_ns + SWEEP_NS;
            }
            if self.supply.is_open_loop() {
                self.hand_out(now_ns);
            }
            if !self.supply.goes_on(now_ns) && self.open() == 0 {
                break;
            }
            self.turn(sweep_ns)?;
        }
        self.part()?;
        let last_ns = if self.share.calls.is_some() {
            self.tally.last_end_ns
        } else {
            end_ns
        };
        Ok((self.tally, last_ns.saturating_sub(from_ns).max(1)))
    }

    fn now_ns(&self) -> u64 {
        self.born.elapsed().as_nanos() as u64
    }

    /// Open all connections and wait until the server has greeted on each.
    fn connect(&mut self) -> Result<(), String> {
        while self.now_ns() < CONNECT_NS_MAX {
            let now_ns = self.now_ns();
            self.replace(now_ns);
            let greeted = self
                .links
                .iter()
                .flatten()
                .filter(|link| link.connection.greeted);
            if greeted.count() >= self.share.connections {
                return Ok(());
            }
            self.turn(now_ns + SWEEP_NS)?;
        }
        let trouble = if self.trouble.is_empty() {
            "nothing was said"
        } else {
            &self.trouble
        };
        Err(format!(
            "no gRPC server greets at {} within 2 s: {trouble}",
            self.share.dialer.target
        ))
    }

    /// The clock starts. Returns from when to when calls count.
    fn begin(&mut self) -> (u64, u64) {
        let now_ns = self.now_ns();
        let share = &self.share;
        let from_ns = now_ns + share.warm_ns;
        let end_ns = if share.calls.is_some() {
            u64::MAX
        } else {
            from_ns + share.counted_ns
        };
        let pace = share
            .rate
            .map(|rate| Pace::new(rate, share.poisson, share.seed, now_ns));
        // A closed loop's calls are as many as were answered; an open loop's as many as were due.
        let by_end = pace.is_none() && share.calls.is_none();
        let window = Window {
            from_ns,
            to_ns: end_ns,
            by_end,
        };
        self.tally = Tally::new(window, share.reads_replies);
        self.supply = Supply::new(pace, from_ns, end_ns, share.calls);
        self.begun = true;
        (from_ns, end_ns)
    }

    fn open(&self) -> usize {
        self.links
            .iter()
            .flatten()
            .map(|link| link.connection.open())
            .sum()
    }

    /// Closed loop: ask on every connection as much as fits.
    fn fill_all(&mut self, now_ns: u64) {
        for place in 0..self.links.len() {
            self.fill(place, now_ns);
            self.flush(place);
        }
    }

    /// Ask on one connection as much as fits.
    #[inline]
    fn fill(&mut self, place: usize, now_ns: u64) {
        let Some(link) = &mut self.links[place] else {
            return;
        };
        loop {
            for _ in 0..link.connection.room() {
                let Some(due_ns) = self.supply.take(now_ns) else {
                    return;
                };
                let times = Times {
                    due_ns,
                    sent_ns: now_ns,
                };
                link.connection.ask(times, &mut self.bodies);
                if link.connection.out.blocked() {
                    break;
                }
            }
            if link.connection.room() == 0 {
                return;
            }
        }
    }

    /// Open loop: give what is due to the connections by turns.
    fn hand_out(&mut self, now_ns: u64) {
        while let Some(due_ns) = self.supply.take(now_ns) {
            let Some(place) = self.with_room() else {
                self.supply.put_back(due_ns);
                break;
            };
            if let Some(link) = &mut self.links[place] {
                link.connection.ask(
                    Times {
                        due_ns,
                        sent_ns: now_ns,
                    },
                    &mut self.bodies,
                );
            }
        }
        for place in 0..self.links.len() {
            self.flush(place);
        }
    }

    /// The next connection that can take a call.
    #[inline]
    fn with_room(&mut self) -> Option<usize> {
        for _ in 0..self.links.len() {
            self.next = (self.next + 1) % self.links.len();
            if self.links[self.next]
                .as_ref()
                .is_some_and(|link| link.connection.room() > 0)
            {
                return Some(self.next);
            }
        }
        None
    }

    /// Wait for something to happen, at most until *until_ns*, and take it in.
    fn turn(&mut self, until_ns: u64) -> Result<(), String> {
        let until_ns = until_ns.min(self.supply.next_ns());
        let wait = Duration::from_nanos(until_ns.saturating_sub(self.now_ns()));
        let wait = self
            .timer
            .set(wait)
            .map_err(|error| format!("no timer: {error}"))?;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("cannot wait for the connections: {error}"));
            }
            _ => {}
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let place = event.token().0;
            let Some(Some(link)) = self.links.get_mut(place) else {
                continue;
            };
            link.stuck &= !event.is_writable();
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.receive(place);
            }
            if !self.supply.is_open_loop() {
                let now_ns = self.now_ns();
                self.fill(place, now_ns);
            }
            self.flush(place);
        }
        events.clear();
        self.events = events;
        self.progress
            .ended
            .store(self.tally.ended, Ordering::Relaxed);
        self.progress
            .ended_badly
            .store(self.tally.ended_badly, Ordering::Relaxed);
        Ok(())
    }

    /// End the streams of messages and leave; what the server still has to say has a second.
    fn part(&mut self) -> Result<(), String> {
        let give_up_ns = self.now_ns() + PART_NS_MAX;
        for place in 0..self.links.len() {
            if let Some(link) = &mut self.links[place] {
                link.connection.finish();
            }
            self.flush(place);
        }
        let idle = |link: &Link| link.connection.idle();
        while !self.links.iter().flatten().all(idle) && self.now_ns() < give_up_ns {
            self.turn(self.now_ns() + SWEEP_NS)?;
        }
        Ok(())
    }
}
