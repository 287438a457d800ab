//! Load generator for a Turnout gateway. README.md describes it; `--help` lists its options.

mod connection;
mod constant_server;
mod http2;
mod load;
mod open_calls;
mod options;
mod protobuf;
mod replies;
mod report;
mod requests;
mod results;
mod schedule;
mod sockets;
mod timer;

use constant_server::ConstantServer;
use load::RunError;
use options::{Command, Options};
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let result = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Ok(Command::ConstantServer(address)) => serve(&address).map_err(RunError::Usage),
        Ok(Command::Run(options)) => run(&options),
        Err(message) => Err(RunError::Usage(message)),
    };
    let (message, code) = match result {
        Ok(code) => return code,
        Err(RunError::Usage(message)) => (message, WRONG_USAGE),
        Err(RunError::Unreachable(message)) => (message, UNREACHABLE),
    };
    eprintln!("{message}");
    ExitCode::from(code)
}

fn run(options: &Options) -> Result<ExitCode, RunError> {
    let outcome = load::run(options)?;
    let report = report::Report { options, outcome: &outcome, cpu_s: cpu_s() };
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn serve(address: &str) -> Result<ExitCode, String> {
    let serve = || {
        let server = ConstantServer::bind(address)?;
        println!("{}", server.address()?);
        server.serve()
    };
    let end = serve();
    end.map(|()| ExitCode::SUCCESS).map_err(|error| format!("cannot serve at {address}: {error}"))
}

/// Returns the CPU time of this process so far, seconds.
fn cpu_s() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
