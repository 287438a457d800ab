//! The command line.

use crate::bodies::{KeyPattern, Recipe};
use crate::order::Order;
use crate::tally::CODES;
use std::path::PathBuf;

pub const HELP: &str = include_str!("help.txt");

#[derive(Clone, Debug)]
pub struct Options {
    pub target: String,
    pub method: String,
    pub recipe: Recipe,
    pub bodies: Option<PathBuf>,
    pub order: Order,
    pub first: u64,
    pub seed: u64,
    pub headers: Vec<(String, String)>,
    pub connections: usize,
    pub streams: usize,
    /// PredictStream, with so many messages open on each stream; 0: unary.
    pub messages: usize,
    pub threads: usize,
    pub rate: Option<f64>,
    pub poisson: bool,
    pub seconds: f64,
    pub calls: Option<u64>,
    pub warm: f64,
    pub timeout_ms: u64,
    pub json: bool,
    pub quiet: bool,
    /// Statuses that are no failure, beside OK.
    pub allowed: Vec<bool>,
    pub tls: bool,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

pub enum Asked {
    Help,
    /// Answer with constant bytes on this address.
    Null(String),
    Run(Box<Options>),
}

const PREDICT: &str = "turnout.v1.Predictor/Predict";
const PREDICT_STREAM: &str = "turnout.v1.Predictor/PredictStream";
const MESSAGES: usize = 16;

impl Default for Options {
    fn default() -> Options {
        Options {
            target: String::new(),
            method: String::new(),
            recipe: Recipe {
                rows: 1,
                ..Recipe::default()
            },
            bodies: None,
            order: Order::Distinct,
            first: 0,
            seed: 1,
            headers: Vec::new(),
            connections: 4,
            streams: 32,
            messages: 0,
            threads: 1,
            rate: None,
            poisson: true,
            seconds: 10.0,
            calls: None,
            warm: 1.0,
            timeout_ms: 1_000,
            json: false,
            quiet: false,
            allowed: vec![false; CODES.len()],
            tls: false,
            ca: None,
            cert: None,
            key: None,
        }
    }
}

/// Read the words after the program's name. An error says what is wrong with them.
pub fn parse(words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut words = words.peekable();
    if words.peek().is_some_and(|word| word == "null") {
        words.next();
        return Ok(Asked::Null(
            words.next().unwrap_or_else(|| "127.0.0.1:0".into()),
        ));
    }
    let mut options = Options::default();
    let mut streamed = None;
    while let Some(word) = words.next() {
        if !word.starts_with('-') && options.target.is_empty() {
            options.target = word;
            continue;
        }
        let (name, given) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (word.clone(), None),
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
            "--json" => options.json = true,
            "--quiet" => options.quiet = true,
            "--even" => options.poisson = false,
            "--tls" => options.tls = true,
            "--stream" => streamed = streamed.or(Some(MESSAGES)),
            _ => {
                let value = given.or_else(|| words.next());
                let value = value.ok_or_else(|| format!("{name} needs a value; see --help"))?;
                if name == "--messages" {
                    streamed = Some(number(&name, &value)?);
                } else {
                    set(&mut options, &name, &value)?;
                }
            }
        }
    }
    options.messages = streamed.unwrap_or(0);
    check(&mut options, streamed)?;
    Ok(Asked::Run(Box::new(options)))
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), String> {
    let recipe = &mut options.recipe;
    match name {
        "--method" => options.method = value.trim_start_matches('/').into(),
        "--model" => recipe.model = value.into(),
        "--version" => recipe.version = value.into(),
        "--criticality" => recipe.criticality = criticality(value)?,
        "--key" => recipe.keys.push(KeyPattern::parse(value)?),
        "--rows" => recipe.rows = number(name, value)?,
        "--inputs" => recipe.inputs = number(name, value)?,
        "--named" => recipe.named.push(range(value)?),
        "--text" => recipe.texts.push(choice(value)?),
        "--bodies" => options.bodies = Some(value.into()),
        "--order" => options.order = order(value)?,
        "--first" => options.first = number(name, value)?,
        "--seed" => options.seed = number(name, value)?,
        "--header" => options.headers.push(header(value)?),
        "--connections" => options.connections = number(name, value)?,
        "--streams" => options.streams = number(name, value)?,
        "--threads" => options.threads = number(name, value)?,
        "--rate" => options.rate = Some(number(name, value)?),
        "--seconds" => options.seconds = number(name, value)?,
        "--calls" => options.calls = Some(number(name, value)?),
        "--warm" => options.warm = number(name, value)?,
        "--timeout-ms" => options.timeout_ms = number(name, value)?,
        "--allow" => allow(&mut options.allowed, value)?,
        "--ca" => options.ca = Some(value.into()),
        "--cert" => options.cert = Some(value.into()),
        "--cert-key" => options.key = Some(value.into()),
        _ => return Err(format!("{name} is no option of this program; see --help")),
    }
    Ok(())
}

fn check(options: &mut Options, streamed: Option<usize>) -> Result<(), String> {
    let told = |wrong: bool, words: &str| if wrong { Err(words.to_owned()) } else { Ok(()) };
    let own = options.bodies.is_some();
    let other = !options.method.is_empty() && options.method != PREDICT;
    told(
        options.target.is_empty(),
        "say where: HOST:PORT or unix:PATH; see --help",
    )?;
    told(
        options.recipe.model.is_empty() && !own,
        "say which --model, or give --bodies FILE",
    )?;
    told(
        other && !own,
        "only Predict's messages can be made here; give --bodies FILE",
    )?;
    told(
        options.threads == 0 || options.connections < options.threads || options.streams == 0,
        "threads and streams are 1 or more, connections as many as threads or more",
    )?;
    told(streamed == Some(0), "--messages is 1 or more")?;
    told(options.messages > 65_536, "--messages is at most 65,536")?;
    told(
        other && options.messages > 0,
        "--stream asks PredictStream; leave --method out",
    )?;
    told(
        !(options.seconds > 0.0 && options.warm >= 0.0),
        "--seconds is above 0, --warm not below",
    )?;
    told(
        options
            .rate
            .is_some_and(|rate| rate.is_nan() || rate <= 0.0),
        "--rate is above 0",
    )?;
    told(
        options.timeout_ms == 0 || options.timeout_ms > 99_999_999,
        "--timeout-ms: 1 to 99999999",
    )?;
    told(
        options
            .calls
            .is_some_and(|calls| calls < options.threads as u64),
        "--calls: 1 a thread",
    )?;
    told(options.recipe.rows == 0, "--rows is 1 or more")?;
    if options.method.is_empty() {
        let method = if options.messages > 0 {
            PREDICT_STREAM
        } else {
            PREDICT
        };
        options.method = method.into();
    }
    Ok(())
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    let plain = value.replace(['_', ','], "");
    plain
        .parse()
        .map_err(|_| format!("{name} needs a number, and {value:?} is none that fits"))
}

fn criticality(value: &str) -> Result<u8, String> {
    ["", "critical", "default", "sheddable"]
        .iter()
        .position(|name| !name.is_empty() && *name == value.to_lowercase())
        .map(|place| place as u8)
        .ok_or_else(|| format!("criticality {value:?}: critical, default or sheddable"))
}

/// NAME=LOW..HIGH
fn range(value: &str) -> Result<(String, f32, f32), String> {
    let read = || {
        let (name, bounds) = value.split_once('=')?;
        let (low, high) = bounds.split_once("..")?;
        Some((name.to_owned(), low.parse().ok()?, high.parse().ok()?))
    };
    read().ok_or_else(|| format!("--named {value:?}: write NAME=LOW..HIGH, as in age=18..90"))
}

/// NAME=A|B|C
fn choice(value: &str) -> Result<(String, Vec<String>), String> {
    let (name, words) = value
        .split_once('=')
        .ok_or_else(|| format!("--text {value:?}: write NAME=A|B|C, as in plan=basic|premium"))?;
    Ok((
        name.to_owned(),
        words.split('|').map(str::to_owned).collect(),
    ))
}

fn order(value: &str) -> Result<Order, String> {
    match value.split_once(':') {
        None if value == "distinct" => Ok(Order::Distinct),
        None if value == "uniform" => Ok(Order::Uniform),
        None if value == "zipf" => Ok(Order::Zipf(1.0)),
        Some(("zipf", exponent)) => Ok(Order::Zipf(number("--order zipf", exponent)?)),
        _ => Err(format!("order {value:?}: distinct, uniform, or zipf:1.0")),
    }
}

fn header(value: &str) -> Result<(String, String), String> {
    let (name, text) = value
        .split_once(':')
        .ok_or_else(|| format!("--header {value:?}: write NAME: VALUE"))?;
    let name = name.trim().to_lowercase();
    let plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if name.is_empty() || name.starts_with(':') || !plain(&name) || !plain(text) {
        return Err(format!("--header {value:?} is no header of plain ASCII"));
    }
    Ok((name, text.trim().to_owned()))
}

fn allow(allowed: &mut [bool], value: &str) -> Result<(), String> {
    for word in value.split(',') {
        let name = word.trim().to_uppercase();
        if name == "ALL" {
            allowed.fill(true);
        } else {
            let place = CODES.iter().position(|code| *code == name);
            allowed[place.ok_or_else(|| format!("{word:?} is no gRPC status, nor all"))?] = true;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(str::to_owned))? {
            Asked::Run(options) => Ok(*options),
            _ => Err("not a run".into()),
        }
    }

    #[test]
    fn a_line_is_read() {
        let line = "localhost:1 --model churn --key S##:50 --order zipf:1.2 --rate=40,000 --even \
                    --calls 1_000 --named age=18..90 --text plan=a|b --allow unavailable --stream";
        let options = run(line).unwrap();
        assert_eq!(options.method, PREDICT_STREAM);
        assert_eq!((options.rate, options.calls), (Some(40_000.0), Some(1_000)));
        assert_eq!(
            (options.order, options.messages),
            (Order::Zipf(1.2), MESSAGES)
        );
        assert_eq!(options.recipe.named, [("age".to_owned(), 18.0, 90.0)]);
        assert_eq!(options.recipe.texts[0].1, ["a", "b"]);
        assert!(options.allowed[14] && !options.allowed[4] && !options.poisson);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, words) in [
            ("", "HOST:PORT"),
            ("a:1", "--model"),
            ("a:1 --model", "needs a value"),
            ("a:1 --model m --nonsense 1", "--nonsense"),
            ("a:1 --model m --rows x", "--rows"),
            ("a:1 --model m --rate 0", "--rate"),
            ("a:1 --model m --method x/Y", "--bodies"),
            ("a:1 --model m --named age=18", "LOW..HIGH"),
            ("a:1 --model m --order backwards", "distinct"),
            ("a:1 --model m --allow NOTHING", "status"),
            ("a:1 --model m --messages 0", "--messages"),
            ("a:1 --model m --threads 9", "connections"),
        ] {
            let said = run(line).err().unwrap_or_default();
            assert!(said.contains(words), "{line:?}: {said:?}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let source = include_str!("options.rs");
        let named = source.split('"').filter(|word| {
            word.starts_with("--")
                && word[2..]
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-')
        });
        let missing: Vec<_> = named
            .filter(|name| {
                *name != "--nonsense"
                    && *name != "--help"
                    && name.len() > 3
                    && !HELP.contains(*name)
            })
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
