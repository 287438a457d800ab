//! Callers: identities of the gateway's callers file, their models and their quotas.
//!
//! Python reads the file and verifies tokens; this table says in one look-up whose token a call has.
//! gateway/transport/callers.py has the same rules for the grpcio server, with the same messages.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ring::digest::{digest, SHA256};

use crate::calls::refusal::{code, Refusal};
use crate::calls::shape::ModelShapes;

/// A caller's number: 1 and up, the same for the life of the process. 0: no caller.
pub type CallerNumber = u32;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// Verdicts of Python about tokens that are remembered, negative ones too. All are forgotten beyond.
const VERIFIED_MAX: usize = 10_000;
/// Tokens that Python verifies at the same time. Calls with further ones are refused.
const VERIFYING_MAX: usize = 256;
/// How soon a call may come again after a quota refused it, at least and at most.
const PUSHBACK_MS: (f64, f64) = (10.0, 5_000.0);

/// A caller's rates, by these names in its messages.
const RATE_NAMES: [&str; 3] = ["calls", "rows", "bytes"];
/// Index of calls a second in `CallerRules::rates`.
pub const CALLS: usize = 0;
/// Index of rows a second.
pub const ROWS: usize = 1;
/// Index of bytes of messages a second.
pub const BYTES: usize = 2;

/// What one caller may do. 0 in a bound: there is none.
pub struct CallerRules {
    /// As the callers file names it.
    pub name: String,
    /// The models that it may call. None: all.
    pub models: Option<HashSet<String>>,
    /// The models of which it may pin every version.
    pub pins: HashSet<String>,
    /// Calls, rows and bytes a second.
    pub rates: [u64; 3],
    /// Open connections.
    pub connections: u32,
    /// Calls that may be open at one time.
    pub streams: u32,
}

/// The callers file, as Python read it. It is replaced as a whole.
#[derive(Default)]
pub struct Directory {
    /// Caller number - 1 -> its rules.
    pub callers: Vec<CallerRules>,
    /// Digest of a token -> its caller, and the monotonic time at which it expires.
    pub tokens: HashMap<TokenDigest, (CallerNumber, i64)>,
    /// DNS or URI name of a client certificate -> its caller.
    pub names: HashMap<String, CallerNumber>,
    /// Python can verify tokens that are not in `tokens` (JWT).
    pub verifies: bool,
}

/// What an authorization header says.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Authorization {
    /// The call has no such header.
    #[default]
    Absent,
    /// It is this caller's.
    Known(CallerNumber),
    /// It is nobody's.
    Invalid,
    /// Python has to verify the token.
    Unverified(TokenDigest),
}

/// What is known of the caller of one connection.
#[derive(Default)]
pub struct ConnCaller {
    /// Names of the client's certificate. None: not asked yet.
    pub certificate_names: Option<Vec<String>>,
    /// The caller that the connection counts for.
    counted: CallerNumber,
    /// The last authorization header that was known, and what it said.
    header: Vec<u8>,
    caller: CallerNumber,
    expires_ns: i64,
    generation: u64,
}

/// Tokens that refill at a rate, up to a second's worth. It may go below 0, so that a large call is
/// served and paid for afterwards.
#[derive(Clone, Copy, Default)]
struct Bucket {
    spent: f64,
    at_ns: i64,
}

impl Bucket {
    /// Take `amount`, or say how many milliseconds to wait.
    fn take(&mut self, rate: u64, amount: f64, now_ns: i64) -> Result<(), f64> {
        let rate = rate as f64;
        let elapsed_s = (now_ns - self.at_ns).max(0) as f64 / 1e9;
        self.spent = (self.spent - elapsed_s * rate).max(0.0);
        self.at_ns = now_ns;
        if self.spent >= rate {
            return Err(1_000.0 * (self.spent - rate) / rate);
        }
        self.spent += amount;
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct Usage {
    buckets: [Bucket; 3],
    connections: u32,
    streams: u32,
}

/// All callers of one I/O thread.
#[derive(Default)]
pub struct Callers {
    directory: Directory,
    /// Changes with the directory, so that connections look their header up again.
    generation: u64,
    usage: Vec<Usage>,
    verified: HashMap<TokenDigest, (CallerNumber, i64)>,
    verifying: HashSet<TokenDigest>,
    /// Caller number - 1 -> the shapes of its models. None: all models.
    shapes: Vec<Option<ModelShapes>>,
    /// (caller, code) -> refusals that Python was not told of.
    pub refusals: HashMap<(CallerNumber, u32), u64>,
}

impl Callers {
    /// Replace the directory. Callers keep their numbers and what they have used.
    pub fn replace(&mut self, directory: Directory, shapes: &ModelShapes) {
        self.directory = directory;
        self.generation += 1;
        self.usage.resize(self.directory.callers.len(), Usage::default());
        self.verified.clear();
        self.set_shapes(shapes);
    }

    /// Give each caller the shapes of its models.
    pub fn set_shapes(&mut self, shapes: &ModelShapes) {
        let of_caller = |rules: &CallerRules| {
            let allowed = rules.models.as_ref()?;
            let known =
                |name: &String| Some((name.clone().into_bytes(), shapes.get(name.as_bytes())?));
            let own = allowed.iter().filter_map(known);
            Some(own.map(|(name, shape)| (name, Arc::clone(shape))).collect())
        };
        self.shapes = self.directory.callers.iter().map(of_caller).collect();
    }

    /// The shapes of a caller's models. None: it may call all models.
    pub fn shapes(&self, caller: CallerNumber) -> Option<&ModelShapes> {
        self.shapes.get(index(caller)?)?.as_ref()
    }

    /// Whether a caller may call a model, which need not exist.
    pub fn may_call(&self, caller: CallerNumber, model: &str) -> bool {
        self.rules(caller)
            .is_some_and(|rules| rules.models.as_ref().is_none_or(|models| models.contains(model)))
    }

    /// Whether a caller may pin every version of a model.
    pub fn may_pin(&self, caller: CallerNumber, model: &str) -> bool {
        self.rules(caller).is_some_and(|rules| rules.pins.contains(model))
    }

    fn rules(&self, caller: CallerNumber) -> Option<&CallerRules> {
        self.directory.callers.get(index(caller)?)
    }

    // Identity

    /// Read an authorization header. A connection's usual header costs one comparison.
    pub fn authorization(&self, conn: &mut ConnCaller, value: &[u8], now_ns: i64) -> Authorization {
        if conn.generation == self.generation && now_ns < conn.expires_ns && conn.header == value {
            return Authorization::Known(conn.caller);
        }
        let Some(token) = token_of(value) else {
            return Authorization::Invalid;
        };
        let key = token_digest(token);
        let known = self.directory.tokens.get(&key).or_else(|| self.verified.get(&key));
        match known {
            Some((caller, expires_ns)) if *caller != 0 && now_ns < *expires_ns => {
                conn.header = value.to_vec();
                (conn.caller, conn.expires_ns) = (*caller, *expires_ns);
                conn.generation = self.generation;
                Authorization::Known(*caller)
            }
            // A verdict that has expired is asked for again; Python knows what time it is.
            Some((_, expires_ns)) if now_ns < *expires_ns => Authorization::Invalid,
            _ if self.directory.verifies && is_jwt(token) => Authorization::Unverified(key),
            _ => Authorization::Invalid,
        }
    }

    /// The caller of a call: its token's or, without a token, its certificate's.
    pub fn caller_of(
        &self,
        conn: &ConnCaller,
        authorization: Authorization,
    ) -> Result<CallerNumber, Refusal> {
        let by_certificate = || {
            let names = conn.certificate_names.as_ref()?;
            names.iter().find_map(|name| self.directory.names.get(name).copied())
        };
        let caller = match authorization {
            Authorization::Known(caller) => Some(caller),
            Authorization::Absent => by_certificate(),
            Authorization::Invalid | Authorization::Unverified(_) => None,
        };
        caller.ok_or_else(unauthenticated)
    }

    /// Whether Python has to be asked about a token now. False: it was asked already.
    pub fn begin_verifying(&mut self, key: TokenDigest) -> Result<bool, Refusal> {
        if self.verifying.len() >= VERIFYING_MAX && !self.verifying.contains(&key) {
            return Err(Refusal {
                code: code::UNAVAILABLE,
                message: "many new tokens are being verified; call again".to_owned(),
                pushback_ms: Some(100),
            });
        }
        Ok(self.verifying.insert(key))
    }

    /// Remember whose token it is until `expires_ns`. 0: nobody's.
    pub fn end_verifying(&mut self, key: TokenDigest, caller: CallerNumber, expires_ns: i64) {
        self.verifying.remove(&key);
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(key, (caller, expires_ns));
    }

    // Quotas

    /// Begin a call of a caller: count its connection and its stream.
    pub fn enter(&mut self, conn: &mut ConnCaller, caller: CallerNumber) -> Result<(), Refusal> {
        let Some(at) = index(caller).filter(|at| *at < self.usage.len()) else {
            return Err(unauthenticated());
        };
        if conn.counted != caller {
            let rules = &self.directory.callers[at];
            if rules.connections > 0 && self.usage[at].connections >= rules.connections {
                return Err(too_many(&rules.name, rules.connections, "connections"));
            }
            self.usage[at].connections += 1;
            self.close(conn);
            conn.counted = caller;
        }
        let rules = &self.directory.callers[at];
        if rules.streams > 0 && self.usage[at].streams >= rules.streams {
            return Err(too_many(&rules.name, rules.streams, "open calls"));
        }
        self.usage[at].streams += 1;
        Ok(())
    }

    /// End a call that was begun.
    pub fn leave(&mut self, caller: CallerNumber) {
        if let Some(usage) = index(caller).and_then(|at| self.usage.get_mut(at)) {
            usage.streams = usage.streams.saturating_sub(1);
        }
    }

    /// End a connection.
    pub fn close(&mut self, conn: &mut ConnCaller) {
        self.leave_connection(std::mem::take(&mut conn.counted));
    }

    fn leave_connection(&mut self, caller: CallerNumber) {
        if let Some(usage) = index(caller).and_then(|at| self.usage.get_mut(at)) {
            usage.connections = usage.connections.saturating_sub(1);
        }
    }

    /// Take from one of a caller's rates: CALLS, ROWS or BYTES.
    pub fn take(
        &mut self,
        caller: CallerNumber,
        what: usize,
        amount: f64,
        now_ns: i64,
    ) -> Result<(), Refusal> {
        let Some(at) = index(caller).filter(|at| *at < self.usage.len()) else {
            return Ok(());
        };
        let rules = &self.directory.callers[at];
        let rate = rules.rates[what];
        if rate == 0 {
            return Ok(());
        }
        self.usage[at].buckets[what].take(rate, amount, now_ns).map_err(|wait_ms| Refusal {
            code: code::RESOURCE_EXHAUSTED,
            message: format!(
                "caller '{}' is above its quota of {rate} {} a second; wait and call again",
                rules.name, RATE_NAMES[what]
            ),
            pushback_ms: Some(wait_ms.clamp(PUSHBACK_MS.0, PUSHBACK_MS.1) as u32),
        })
    }

    /// Count a refusal of a caller; 0: of nobody.
    pub fn count_refusal(&mut self, caller: CallerNumber, code: u32) {
        *self.refusals.entry((caller, code)).or_default() += 1;
    }
}

/// The refusal of a caller that is not in the callers file. It says the same whatever was wrong.
pub fn unauthenticated() -> Refusal {
    Refusal::new(
        code::UNAUTHENTICATED,
        "this gateway serves callers that its callers file names: send \"authorization: Bearer \
         TOKEN\" with a token that has not expired, or a client certificate",
    )
}

/// The refusal of a model that a caller may not call, whether it exists or not.
pub fn model_forbidden() -> Refusal {
    Refusal::new(
        code::PERMISSION_DENIED,
        "this caller may not call that model, or there is no such model; the gateway's callers \
         file lists the models of each caller",
    )
}

fn too_many(name: &str, bound: u32, what: &str) -> Refusal {
    Refusal {
        code: code::RESOURCE_EXHAUSTED,
        message: format!("caller '{name}' has {bound} {what}, all that it may have; close some"),
        pushback_ms: Some(100),
    }
}

fn index(caller: CallerNumber) -> Option<usize> {
    (caller as usize).checked_sub(1)
}

/// The token of an authorization header. None: it is no bearer token.
pub fn token_of(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"Bearer ").filter(|token| !token.is_empty())
}

/// SHA-256 of a token.
pub fn token_digest(token: &[u8]) -> TokenDigest {
    let mut key = TokenDigest::default();
    key.copy_from_slice(digest(&SHA256, token).as_ref());
    key
}

/// Whether a token has the three parts of a signed JWT.
fn is_jwt(token: &[u8]) -> bool {
    token.iter().filter(|octet| **octet == b'.').count() == 2
}
