//! Asks a gRPC gateway for predictions, fast and exactly timed; `--help` says how.

mod bodies;
mod connection;
mod drive;
mod frames;
mod hpack;
mod null;
mod open_calls;
mod options;
mod order;
mod outgoing;
mod pace;
mod replies;
mod report;
mod run;
mod sockets;
mod tally;
#[cfg(feature = "tls")]
mod tls;

use options::Asked;
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const NOT_REACHABLE: u8 = 3;

fn main() -> ExitCode {
    match options::parse(std::env::args().skip(1)) {
        Ok(Asked::Help) => {
            print!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Asked::Null(address)) => match serve(&address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => leave(&format!("cannot listen on {address}: {error}"), WRONG_USAGE),
        },
        Ok(Asked::Run(options)) => match run::run(&options) {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(FAILED),
            Err(run::Trouble::Usage(words)) => leave(&words, WRONG_USAGE),
            Err(run::Trouble::Unreachable(words)) => leave(&words, NOT_REACHABLE),
        },
        Err(words) => leave(&words, WRONG_USAGE),
    }
}

fn serve(address: &str) -> std::io::Result<()> {
    let null = null::Null::bind(address)?;
    println!("{}", null.address()?);
    null.serve(None)
}

fn leave(words: &str, code: u8) -> ExitCode {
    eprintln!("{words}");
    ExitCode::from(code)
}
