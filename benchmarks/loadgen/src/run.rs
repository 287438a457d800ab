//! One run: options to threads, threads to one report.

use crate::bodies::{Bodies, Source};
use crate::connection::Manner;
use crate::drive::{Drive, Progress, Share};
use crate::hpack;
use crate::options::Options;
use crate::report::Run;
use crate::sockets::{Dialer, Target};
use crate::tally::Tally;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub enum Trouble {
    Usage(String),
    Unreachable(String),
}

const PREDICT: &str = "turnout.v1.Predictor/Predict";
const TOLD_EVERY: Duration = Duration::from_secs(1);
const LOOKED_EVERY: Duration = Duration::from_millis(20);

/// Ask as the options say and print what came of it; returns how many calls failed.
pub fn run(options: &Options) -> Result<u64, Trouble> {
    let (tally, counted_ns, streams_allowed) = ask(options)?;
    let streams_allowed = Some(streams_allowed).filter(|&allowed| allowed < options.streams as u64);
    let counted_s = counted_ns as f64 / 1e9;
    let run = Run {
        options,
        tally: &tally,
        counted_s,
        cpu_s: cpu_s(),
        streams_allowed,
    };
    if options.json {
        println!("{}", run.json());
    } else {
        print!("{}", run.table());
    }
    Ok(run.failed())
}

/// Run all threads; returns their tallies added up, the time counted (ns), and the streams allowed.
pub fn ask(options: &Options) -> Result<(Tally, u64, u64), Trouble> {
    let drives: Vec<_> = (0..options.threads)
        .map(|place| Ok((share(options, place)?, bodies(options, place)?)))
        .collect::<Result<_, String>>()
        .map_err(Trouble::Usage)?;
    let progress: Vec<Progress> = drives.iter().map(|_| Progress::new()).collect();
    let (together, over) = (Barrier::new(options.threads), AtomicBool::new(false));
    let ended = thread::scope(|scope| {
        let threads: Vec<_> = drives
            .into_iter()
            .zip(&progress)
            .map(|((share, bodies), progress)| {
                let together = &together;
                scope.spawn(move || {
                    Drive::new(share, bodies, progress)
                        .map_err(|error| error.to_string())?
                        .run(together)
                })
            })
            .collect();
        if !options.quiet {
            scope.spawn(|| tell(&progress, &over));
        }
        let ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread panicked"))
            .collect();
        over.store(true, Ordering::Relaxed);
        ended
    });
    let mut sum: Option<(Tally, u64)> = None;
    for one in ended {
        let (tally, counted_ns) = one.map_err(Trouble::Unreachable)?;
        match &mut sum {
            None => sum = Some((tally, counted_ns)),
            Some((whole, longest_ns)) => {
                whole.add(&tally);
                *longest_ns = counted_ns.max(*longest_ns);
            }
        }
    }
    let allowed = progress
        .iter()
        .map(|one| one.streams_allowed.load(Ordering::Relaxed))
        .min();
    let (tally, counted_ns) = sum.ok_or_else(|| Trouble::Usage("no threads".into()))?;
    Ok((tally, counted_ns, allowed.unwrap_or(u64::MAX)))
}

/// What thread *place* does of it all.
fn share(options: &Options, place: usize) -> Result<Share, String> {
    let target = Target::parse(&options.target)?;
    let threads = options.threads as u64;
    let part = |whole: u64| whole / threads + u64::from((place as u64) < whole % threads);
    let manner = Manner {
        block: block(options, &target),
        streams: options.streams,
        messages: options.messages,
        timeout_ns: options.timeout_ms * 1_000_000,
    };
    Ok(Share {
        dialer: dialer(options, target)?,
        manner: Arc::new(manner),
        connections: part(options.connections as u64) as usize,
        rate: options.rate.map(|rate| rate / threads as f64),
        poisson: options.poisson,
        seed: options.seed.wrapping_add(place as u64),
        warm_ns: (options.warm * 1e9) as u64,
        counted_ns: (options.seconds * 1e9) as u64,
        calls: options.calls.map(part),
        reads_replies: options.method == PREDICT || options.messages > 0,
    })
}

fn dialer(options: &Options, target: Target) -> Result<Dialer, String> {
    #[cfg(feature = "tls")]
    let tls = if options.tls {
        Some(crate::tls::config(options)?)
    } else {
        None
    };
    #[cfg(not(feature = "tls"))]
    if options.tls || options.ca.is_some() || options.cert.is_some() || options.key.is_some() {
        return Err("built without TLS: cargo build --release --features tls".into());
    }
    Ok(Dialer {
        target,
        #[cfg(feature = "tls")]
        tls,
    })
}

fn bodies(options: &Options, place: usize) -> Result<Bodies, String> {
    let source = match &options.bodies {
        Some(file) => {
            let content = std::fs::read(file);
            Source::File(content.map_err(|error| format!("{}: {error}", file.display()))?)
        }
        None => Source::Made(options.recipe.clone()),
    };
    let first = options.first + place as u64;
    Bodies::new(
        source,
        options.order,
        options.seed,
        first,
        options.threads as u64,
    )
}

/// The header block of each call: the same bytes every time, for a decoder with an empty table.
fn block(options: &Options, target: &Target) -> Vec<u8> {
    let scheme = if options.tls { 0x87 } else { 0x86 };
    let mut block = vec![0x83, scheme];
    let path = format!("/{}", options.method);
    let timeout = format!("{}m", options.timeout_ms);
    let mut headers: Vec<(&str, &str)> = vec![
        (":path", &path),
        (":authority", target.authority()),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "turnout-loadgen/0.1"),
    ];
    // A stream lives as long as the run; its messages have the timeout.
    if options.messages == 0 {
        headers.push(("grpc-timeout", &timeout));
    }
    headers.extend(
        options
            .headers
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    for (name, text) in headers {
        hpack::encode(&mut block, name.as_bytes(), text.as_bytes());
    }
    block
}

/// Say each second how it goes.
fn tell(progress: &[Progress], over: &AtomicBool) {
    let sum = || {
        let add = |read: fn(&Progress) -> u64| progress.iter().map(read).sum::<u64>();
        (
            add(|one| one.ended.load(Ordering::Relaxed)),
            add(|one| one.ended_badly.load(Ordering::Relaxed)),
        )
    };
    let began = Instant::now();
    let (mut before, mut told_at) = ((0, 0), began);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(LOOKED_EVERY);
        let elapsed = told_at.elapsed();
        if elapsed < TOLD_EVERY {
            continue;
        }
        told_at += elapsed;
        let now = sum();
        eprintln!(
            "{:4.0} s  {:>9.0} calls/s  {} not OK",
            began.elapsed().as_secs_f64(),
            (now.0.saturating_sub(before.0)) as f64 / elapsed.as_secs_f64(),
            now.1.saturating_sub(before.1),
        );
        before = now;
    }
}

fn cpu_s() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::null::Null;
    use crate::options::{Asked, parse};

    fn asked(line: &str) -> Options {
        match parse(line.split_whitespace().map(str::to_owned)) {
            Ok(Asked::Run(options)) => *options,
            _ => panic!("{line}"),
        }
    }

    /// A server in a thread of its own, which goes when the tests do.
    fn null() -> String {
        let null = Null::bind("127.0.0.1:0").unwrap();
        let address = null.address().unwrap().to_string();
        thread::spawn(move || null.serve(None));
        address
    }

    const WHAT: &str = "--quiet --warm 0 --model m --key S#######:100000 --timeout-ms 5000";

    #[test]
    fn a_closed_loop_counts_every_call_it_was_asked_for() {
        for more in [
            "",
            "--stream",
            "--threads 2",
            "--rows 200 --inputs 20",
            "--rate 20000",
        ] {
            let options = asked(&format!("{} {WHAT} --calls 2000 {more}", null()));
            let (tally, counted_ns, allowed) = ask(&options).unwrap();
            assert_eq!((tally.codes[0], tally.calls()), (2_000, 2_000), "{more}");
            assert_eq!((tally.kinds[0].calls, allowed), (2_000, 1_000), "{more}");
            assert!(counted_ns > 0 && tally.connections_lost == 0);
        }
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        let options = asked(&format!(
            "{} {WHAT} --rate 2000 --even --seconds 0.5",
            null()
        ));
        let (tally, counted_ns, _) = ask(&options).unwrap();
        assert_eq!(counted_ns, 500_000_000);
        assert!((999..=1_001).contains(&tally.calls()), "{}", tally.calls());
    }

    #[test]
    fn nobody_there_is_said_and_is_no_usage() {
        let options = asked(&format!("127.0.0.1:1 {WHAT}"));
        let said = ask(&options);
        assert!(matches!(said, Err(Trouble::Unreachable(words)) if words.contains("127.0.0.1:1")));
    }

    #[test]
    fn the_block_says_what_grpc_needs() {
        let options = asked("127.0.0.1:1 --model m --header x-team:crm");
        let block = block(&options, &Target::parse("127.0.0.1:1").unwrap());
        let text = String::from_utf8_lossy(&block);
        for words in [
            "/turnout.v1.Predictor/Predict",
            "application/grpc",
            "1000m",
            "x-team",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
