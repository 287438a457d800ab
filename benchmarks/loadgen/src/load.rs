//! One run: opens the connections, sends the calls when they are due, and counts the answers.

mod links;

use crate::connection::{CallSettings, Connection};
use crate::http2::hpack;
use crate::options::Options;
use crate::requests::Requests;
use crate::results::{DEADLINE_EXCEEDED, Results, Window};
use crate::schedule::{Arrivals, Schedule};
use crate::sockets::Target;
use crate::timer::Timer;
use links::Link;
use mio::{Events, Poll};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The server must accept all connections within this time.
const CONNECT_NS_MAX: u64 = 2_000_000_000;
/// Overdue calls are looked for, and lost connections replaced, once in this time.
const SWEEP_NS: u64 = 10_000_000;
/// The server has this long to end the message streams after the last answer.
const FINISH_NS_MAX: u64 = 1_000_000_000;
const EVENTS: usize = 256;
const BUFFER_BYTES: usize = 256 << 10;

/// Why a run gives no results.
#[derive(Debug)]
pub enum RunError {
    /// The options make no sense.
    Usage(String),
    /// No server answers at the target, or the system fails.
    Unreachable(String),
}

pub struct Outcome {
    pub results: Results,
    /// The time in which calls were counted.
    pub counted: Duration,
    /// The smallest SETTINGS_MAX_CONCURRENT_STREAMS of the server.
    pub streams_allowed: usize,
}

/// Runs the load that the options describe.
pub fn run(options: &Options) -> Result<Outcome, RunError> {
    let target = Target::parse(&options.target).map_err(RunError::Usage)?;
    let requests = requests(options).map_err(RunError::Usage)?;
    let measured = || {
        let mut load = Load::new(options, target, requests)?;
        load.connect()?;
        load.measure()
    };
    measured().map_err(RunError::Unreachable)
}

fn requests(options: &Options) -> Result<Requests, String> {
    match &options.bodies {
        None => Ok(Requests::from_spec(options.spec.clone(), options.first)),
        Some(file) => std::fs::read(file)
            .map_err(|error| error.to_string())
            .and_then(|content| Requests::from_file(content, options.first))
            .map_err(|error| format!("{}: {error}", file.display())),
    }
}

/// Returns the header block of every call. It needs no header table.
fn header_block(options: &Options, target: &Target) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let path = if options.messages > 0 {
        "/turnout.v1.Predictor/PredictStream"
    } else {
        "/turnout.v1.Predictor/Predict"
    };
    let timeout = format!("{}m", options.timeout_ms);
    let mut headers = vec![
        (":path", path),
        (":authority", target.authority()),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "turnout-loadgen/0.1"),
    ];
    // A message stream lives as long as the run, so it has no deadline. Its messages have one here.
    if options.messages == 0 {
        headers.push(("grpc-timeout", &timeout));
    }
    headers.extend(options.headers.iter().map(|(name, value)| (&name[..], &value[..])));
    for (name, value) in headers {
        hpack::encode(&mut block, name, value);
    }
    block
}

struct Load<'a> {
    options: &'a Options,
    target: Target,
    settings: Rc<CallSettings>,
    requests: Requests,
    poll: Poll,
    timer: Timer,
    events: Events,
    buffer: Vec<u8>,
    /// Connections by place. A place's number is the token of its socket's events.
    links: Vec<Option<Link>>,
    schedule: Schedule,
    results: Results,
    started: Instant,
    /// The place of the connection that was given the last call of an open loop.
    last_used: usize,
    /// No connection is opened before this time.
    reconnect_ns: u64,
    /// Why a connection could not be opened, or was lost.
    last_error: String,
    streams_allowed: usize,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options, target: Target, requests: Requests) -> Result<Load<'a>, String> {
        let poll = Poll::new().map_err(|error| format!("cannot poll: {error}"))?;
        let timer = Timer::new(&poll).map_err(|error| format!("cannot set timers: {error}"))?;
        let settings = CallSettings {
            header_block: header_block(options, &target),
            streams: options.streams,
            messages: options.messages,
            timeout_ns: options.timeout_ms * 1_000_000,
        };
        Ok(Load {
            options,
            target,
            settings: Rc::new(settings),
            requests,
            poll,
            timer,
            events: Events::with_capacity(EVENTS),
            buffer: vec![0; BUFFER_BYTES],
            links: Vec::new(),
            // Until the connections exist, no call is due and none is counted.
            schedule: Schedule::new(None, 0, 0, None),
            results: Results::new(Window { from_ns: 0, to_ns: 0, by_end: true }),
            started: Instant::now(),
            last_used: 0,
            reconnect_ns: 0,
            last_error: String::new(),
            streams_allowed: usize::MAX,
        })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Opens all connections and waits until the server has sent its SETTINGS on each.
    fn connect(&mut self) -> Result<(), String> {
        while self.now_ns() < CONNECT_NS_MAX {
            let now_ns = self.now_ns();
            self.open_missing(now_ns);
            let ready = self.connections().filter(|connection| connection.is_ready).count();
            if ready >= self.options.connections {
                return Ok(());
            }
            self.poll_once(now_ns + SWEEP_NS)?;
        }
        let reason = match &self.last_error[..] {
            "" => "the server sends no SETTINGS",
            error => error,
        };
        Err(format!("no gRPC server answers at {} within 2 s: {reason}", self.target))
    }

    /// Sends calls until the run is over, and waits for the last answers.
    fn measure(mut self) -> Result<Outcome, String> {
        let (from_ns, end_ns) = self.start_clock();
        let mut sweep_ns = 0;
        loop {
            let now_ns = self.now_ns();
            if now_ns >= sweep_ns {
                self.sweep(now_ns);
                sweep_ns = now_ns + SWEEP_NS;
            }
            if self.schedule.is_open_loop() {
                self.distribute(now_ns);
            }
            let is_over = !self.schedule.has_calls(now_ns);
            if is_over && self.connections().all(|connection| connection.open_calls() == 0) {
                break;
            }
            self.poll_once(sweep_ns)?;
        }
        self.finish()?;
        let last_ns = if self.options.calls.is_some() { self.results.last_end_ns } else { end_ns };
        Ok(Outcome {
            results: self.results,
            counted: Duration::from_nanos(last_ns.saturating_sub(from_ns).max(1)),
            streams_allowed: self.streams_allowed,
        })
    }

    /// Starts to create calls. Returns from when to when they are counted, ns.
    fn start_clock(&mut self) -> (u64, u64) {
        let options = self.options;
        let now_ns = self.now_ns();
        let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
        let from_ns = now_ns + nanoseconds(options.warm_s);
        let end_ns = match options.calls {
            Some(_) => u64::MAX,
            None => from_ns + nanoseconds(options.seconds),
        };
        // The rate of a closed loop is that of its answers, so calls count by their end. An open
        // loop counts every call that was due, so that none is lost because it was slow.
        let by_end = options.rate.is_none() && options.calls.is_none();
        let arrivals = options.rate.map(|rate| Arrivals::new(rate, now_ns));
        self.results = Results::new(Window { from_ns, to_ns: end_ns, by_end });
        self.schedule = Schedule::new(arrivals, from_ns, end_ns, options.calls);
        (from_ns, end_ns)
    }

    /// Does what need not be done at each turn of the loop.
    fn sweep(&mut self, now_ns: u64) {
        // Cancel overdue calls, and fail calls that waited too long for a connection.
        self.cancel_overdue(now_ns);
        let before_ns = now_ns.saturating_sub(self.options.timeout_ms * 1_000_000);
        while let Some(due_ns) = self.schedule.remove_overdue(before_ns) {
            let message = "every connection had all its streams in use until the call's deadline";
            self.results.add_failure(due_ns, DEADLINE_EXCEEDED, message);
        }
        // Replace connections that were lost.
        if self.schedule.has_calls(now_ns) {
            self.open_missing(now_ns);
        }
        for place in 0..self.links.len() {
            self.fill(place, now_ns);
        }
        self.flush_all();
    }

    /// Closed loop: sends as many calls on a connection as it can take.
    #[inline]
    fn fill(&mut self, place: usize, now_ns: u64) {
        if self.schedule.is_open_loop() {
            return;
        }
        let Some(Some(link)) = self.links.get_mut(place) else { return };
        let connection = &mut link.connection;
        loop {
            let free_slots = connection.free_slots();
            if free_slots == 0 {
                return;
            }
            for _ in 0..free_slots {
                let Some(due_ns) = self.schedule.take(now_ns) else { return };
                connection.send(due_ns, &mut self.requests);
                // A large message may have used up the window.
                if connection.writer.is_blocked() {
                    break;
                }
            }
        }
    }

    /// Open loop: gives the calls that are due to the connections in turn.
    fn distribute(&mut self, now_ns: u64) {
        while let Some(due_ns) = self.schedule.take(now_ns) {
            let free = self.next_free().and_then(|place| self.links[place].as_mut());
            let Some(link) = free else {
                self.schedule.put_back(due_ns);
                break;
            };
            link.connection.send(due_ns, &mut self.requests);
        }
        self.flush_all();
    }

    /// Waits for events until `until_ns` at most, and handles them.
    fn poll_once(&mut self, until_ns: u64) -> Result<(), String> {
        // Wait, but not beyond the time when the next call is due.
        let until_ns = until_ns.min(self.schedule.next_ns());
        let wait = Duration::from_nanos(until_ns.saturating_sub(self.now_ns()));
        let timeout =
            self.timer.set(wait).map_err(|error| format!("cannot set a timer: {error}"))?;
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("cannot wait for the connections: {error}"));
            }
            _ => {}
        }
        // Read what arrived, and send the next calls of a closed loop at once.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let place = event.token().0;
            self.receive(event);
            self.fill(place, self.now_ns());
            self.flush(place);
        }
        self.events = events;
        Ok(())
    }

    /// Ends the message streams and waits until the server has ended them too.
    fn finish(&mut self) -> Result<(), String> {
        let give_up_ns = self.now_ns() + FINISH_NS_MAX;
        for link in self.links.iter_mut().flatten() {
            link.connection.finish();
        }
        self.flush_all();
        while !self.connections().all(Connection::is_idle) && self.now_ns() < give_up_ns {
            self.poll_once(self.now_ns() + SWEEP_NS)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constant_server::ConstantServer;

    fn options(line: &str) -> Options {
        crate::options::tests::parse_run(line).unwrap()
    }

    const LOAD: &str = "--warm 0 --model m --key S#######:100000 --timeout-ms 5000";

    /// Starts a server in a thread that ends with the tests. Returns its address.
    fn start_server() -> String {
        let server = ConstantServer::bind("127.0.0.1:0").unwrap();
        let address = server.address().unwrap().to_string();
        std::thread::spawn(move || server.serve());
        address
    }

    #[test]
    fn every_call_that_was_ordered_is_answered_and_counted() {
        for more in ["", "--streams 200 --connections 1", "--rows 200 --inputs 20", "--rate 20000"]
        {
            let line = format!("{} {LOAD} --calls 2000 {more}", start_server());
            let outcome = run(&options(&line)).unwrap();
            let results = &outcome.results;
            assert_eq!((results.codes[0], results.calls()), (2_000, 2_000), "{more}");
            assert_eq!((results.answerers[0].calls, outcome.streams_allowed), (2_000, 1_000));
            assert!(outcome.counted > Duration::ZERO && results.connections_lost == 0);
        }
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        let line = format!("{} {LOAD} --rate 4000 --seconds 0.5", start_server());
        let outcome = run(&options(&line)).unwrap();
        assert_eq!(outcome.counted, Duration::from_millis(500));
        // The seed is fixed, so exactly these arrivals fall into half a second.
        let mut arrivals = Arrivals::new(4_000.0, 0);
        let mut expected = 0;
        while arrivals.next_ns() < 500_000_000 {
            expected += 1;
            arrivals.advance();
        }
        assert_eq!(outcome.results.calls(), expected);
        assert!((1_800..2_200).contains(&expected), "{expected}");
    }

    #[test]
    fn a_missing_server_is_unreachable() {
        let error = run(&options(&format!("127.0.0.1:1 {LOAD}"))).err();
        let named = |text: &str| text.contains("127.0.0.1:1") && text.contains("refused");
        assert!(matches!(&error, Some(RunError::Unreachable(text)) if named(text)), "{error:?}");
    }

    #[test]
    fn the_header_block_has_what_grpc_needs() {
        let options = options("127.0.0.1:1 --model m --header x-team:crm");
        let block = header_block(&options, &Target::parse("127.0.0.1:1").unwrap());
        let text = String::from_utf8_lossy(&block);
        for part in ["/turnout.v1.Predictor/Predict", "application/grpc", "1000m", "x-team"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
