//! The command line.

use crate::requests::{KeyPattern, RequestSpec};
use crate::results::CODES;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub const HELP: &str = include_str!("help.txt");

/// Messages open on each PredictStream, unless --messages says otherwise.
const MESSAGES_DEFAULT: usize = 16;
/// A message's slot is a u16.
const MESSAGES_MAX: usize = 65_535;
/// grpc-timeout has at most eight digits.
const TIMEOUT_MS_MAX: u64 = 99_999_999;

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub target: String,
    pub spec: RequestSpec,
    pub bodies: Option<PathBuf>,
    pub first: u64,
    pub headers: Vec<(String, String)>,
    pub connections: usize,
    pub streams: usize,
    /// Messages open on each PredictStream. 0: the calls are unary.
    pub messages: usize,
    /// Calls a second in an open loop. None: closed loop.
    pub rate: Option<f64>,
    pub seconds: f64,
    pub calls: Option<u64>,
    pub warm_s: f64,
    pub timeout_ms: u64,
    pub json: bool,
    /// By status code: whether a call that ends with it counts as failed.
    pub is_failure: [bool; CODES.len()],
}

pub enum Command {
    Help,
    /// Run the constant server on this address.
    ConstantServer(String),
    Run(Box<Options>),
}

impl Options {
    /// The options of a command line without any.
    pub fn defaults() -> Options {
        let mut is_failure = [true; CODES.len()];
        is_failure[0] = false;
        Options {
            spec: RequestSpec { rows: 1, ..RequestSpec::default() },
            connections: 4,
            streams: 32,
            seconds: 10.0,
            warm_s: 1.0,
            timeout_ms: 1_000,
            is_failure,
            ..Options::default()
        }
    }
}

/// Reads the arguments after the program's name. An error says what is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(arguments);
    let mut options = Options::defaults();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long(name) => {
                let name = name.to_owned();
                set(&mut options, &name, &mut parser)
                    .map_err(|error| format!("--{name}: {error}; see --help"))?;
            }
            Arg::Value(value) if value == "null" && options.target.is_empty() => {
                let address = parser.value().unwrap_or_else(|_| "127.0.0.1:0".into());
                let address = address.string().map_err(|error| error.to_string())?;
                return Ok(Command::ConstantServer(address));
            }
            Arg::Value(value) if options.target.is_empty() => {
                options.target = value.string().map_err(|error| error.to_string())?;
            }
            other => return Err(format!("{}; see --help", other.unexpected())),
        }
    }
    check(&options)?;
    Ok(Command::Run(Box::new(options)))
}

/// Sets one option, and takes its value from the parser if it has one.
fn set(options: &mut Options, name: &str, parser: &mut Parser) -> Result<(), lexopt::Error> {
    match name {
        "json" => options.json = true,
        "stream" if options.messages > 0 => {}
        "stream" => options.messages = MESSAGES_DEFAULT,
        "messages" => options.messages = positive(parser)?,
        "model" => options.spec.model = parser.value()?.string()?,
        "key" => options.spec.keys.push(parser.value()?.parse_with(KeyPattern::parse)?),
        "rows" => options.spec.rows = positive(parser)?,
        "inputs" => options.spec.inputs = parser.value()?.parse()?,
        "bodies" => options.bodies = Some(parser.value()?.into()),
        "first" => options.first = parser.value()?.parse()?,
        "header" => options.headers.push(parser.value()?.parse_with(header)?),
        "connections" => options.connections = positive(parser)?,
        "streams" => options.streams = positive(parser)?,
        "rate" => options.rate = Some(parser.value()?.parse()?),
        "seconds" => options.seconds = parser.value()?.parse()?,
        "calls" => options.calls = Some(positive(parser)? as u64),
        "warm" => options.warm_s = parser.value()?.parse()?,
        "timeout-ms" => options.timeout_ms = parser.value()?.parse()?,
        "allow" => parser.value()?.parse_with(|value| allow(&mut options.is_failure, value))?,
        _ => return Err("there is no such option".into()),
    }
    Ok(())
}

/// Reads a number of at least 1.
fn positive(parser: &mut Parser) -> Result<usize, lexopt::Error> {
    Ok(parser.value()?.parse::<NonZeroUsize>()?.get())
}

/// Refuses options that make no sense together.
fn check(options: &Options) -> Result<(), String> {
    let rate = options.rate.unwrap_or(1.0);
    let wrong = [
        (options.target.is_empty(), "give the target, HOST:PORT or unix:PATH"),
        (
            options.spec.model.is_empty() && options.bodies.is_none(),
            "give the model with --model, or messages with --bodies FILE",
        ),
        (options.messages > MESSAGES_MAX, "--messages must be at most 65535"),
        (!(rate > 0.0 && rate.is_finite()), "--rate must be above 0"),
        (options.seconds.is_nan() || options.seconds <= 0.0, "--seconds must be above 0"),
        (options.warm_s.is_nan() || options.warm_s < 0.0, "--warm must not be below 0"),
        (
            options.timeout_ms == 0 || options.timeout_ms > TIMEOUT_MS_MAX,
            "--timeout-ms must be from 1 to 99999999",
        ),
    ];
    match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
        Some((_, message)) => Err(format!("{message}; see --help")),
        None => Ok(()),
    }
}

/// Reads `NAME: VALUE`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write the header as NAME: VALUE")?;
    let name = name.trim().to_lowercase();
    let is_plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if name.is_empty() || !is_plain(&name) || !is_plain(value) {
        return Err("a header needs a name, and may hold printable ASCII only".into());
    }
    Ok((name, value.trim().to_owned()))
}

/// Marks the named statuses as no failures.
fn allow(is_failure: &mut [bool; CODES.len()], names: &str) -> Result<(), String> {
    for name in names.split(',') {
        let name = name.trim().to_uppercase();
        let code = CODES.iter().position(|code| *code == name);
        match code {
            Some(code) => is_failure[code] = false,
            None if name == "ALL" => is_failure.fill(false),
            None => return Err(format!("{name} is no gRPC status")),
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Reads a command line that runs a load.
    pub fn parse_run(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Command::Run(options) => Ok(*options),
            _ => Err("not a run".into()),
        }
    }

    #[test]
    fn a_command_line_is_read() {
        let line = "localhost:1 --model churn --key S##:50 --rate=40000 --calls 1000 \
                    --allow unavailable --stream --header Team:crm";
        let options = parse_run(line).unwrap();
        assert_eq!((&options.target[..], &options.spec.model[..]), ("localhost:1", "churn"));
        assert_eq!((options.rate, options.calls), (Some(40_000.0), Some(1_000)));
        assert_eq!((options.messages, options.spec.keys[0].count), (MESSAGES_DEFAULT, 50));
        assert_eq!(options.headers, [("team".to_owned(), "crm".to_owned())]);
        assert!(options.is_failure[4] && !options.is_failure[14] && !options.is_failure[0]);
        assert_eq!(parse_run("a:1 --model m --messages 8").unwrap().messages, 8);
        assert_eq!(parse_run("a:1 --model m --messages 8 --stream").unwrap().messages, 8);
    }

    #[test]
    fn null_runs_the_constant_server() {
        for (line, expected) in [("null", "127.0.0.1:0"), ("null 127.0.0.1:9", "127.0.0.1:9")] {
            let command = parse(line.split_whitespace().map(OsString::from));
            assert!(matches!(command, Ok(Command::ConstantServer(address)) if address == expected));
        }
    }

    #[test]
    fn an_error_names_the_option_that_is_wrong() {
        for (line, part) in [
            ("", "HOST:PORT"),
            ("a:1", "--model"),
            ("a:1 --model", "--model"),
            ("a:1 b:2 --model m", "b:2"),
            ("a:1 --model m --nonsense 1", "--nonsense"),
            ("a:1 --model m --rows x", "--rows"),
            ("a:1 --model m --rate 0", "--rate"),
            ("a:1 --model m --key S", "--key"),
            ("a:1 --model m --allow NOTHING", "status"),
            ("a:1 --model m --messages 65536", "--messages"),
            ("a:1 --model m --messages 0", "--messages"),
            ("a:1 --model m --connections 0", "--connections"),
        ] {
            let error = parse_run(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error:?}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let (_, source) = include_str!("options.rs").split_once("match name {").unwrap();
        let (arms, _) = source.split_once("_ =>").unwrap();
        let names: Vec<_> = arms.lines().filter_map(|line| line.trim().split('"').nth(1)).collect();
        assert!(names.len() > 15);
        for name in names {
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
    }
}
