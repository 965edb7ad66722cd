//! How many calls of a kind each caller may make. The counting is governor's (GCRA: what was spent comes back bit by bit, not
//! at the turn of a minute); here is who counts as one caller, how many of them are remembered, and what they are told: the
//! fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{NotUntil, Quota, RateLimiter};
use lru::LruCache;

use super::parameters;
use super::problem::{self, Problem};
use crate::config::RateLimitSettings;

/// Callers that are remembered of each kind; the one that was not seen for longest is forgotten, and begins anew.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than none");
/// The window of every limit, in seconds.
const WINDOW: u64 = 60;

/// What is counted, each kind for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lists, histories, and rows as they were.
    Reads,
    /// Streams of changes that are opened.
    Streams,
    /// Calls of operators and administrators.
    Operations,
    /// Credentials that are not known yet, or wrong.
    LogIns,
    /// Calls that define, check, deploy or stop streams.
    Definitions,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Reads, Kind::Streams, Kind::Operations, Kind::LogIns, Kind::Definitions];

    /// Its name, which is that of its setting in `http.rate_limits`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Reads => "reads",
            Kind::Streams => "streams",
            Kind::Operations => "operations",
            Kind::LogIns => "log_ins",
            Kind::Definitions => "definitions",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Kind::Reads => "lists, histories and rows as they were",
            Kind::Streams => "streams of changes",
            Kind::Operations => "calls of operations",
            Kind::LogIns => "log-ins with credentials that are not known",
            Kind::Definitions => "calls that define, check, deploy or stop streams",
        }
    }
}

/// Which calls of a route are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// None.
    Never,
    /// All of them.
    As(Kind),
    /// Those with one of these parameters.
    With(Kind, &'static [&'static str]),
}

impl Counted {
    /// What is counted of the route.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Counted::Never => None,
            Counted::As(kind) | Counted::With(kind, _) => Some(kind),
        }
    }

    /// As what a call with this query is counted.
    pub fn kind_of(self, query: &str) -> Option<Kind> {
        match self {
            Counted::With(_, names) if !has_one_of(query, names) => None,
            _ => self.kind(),
        }
    }
}

/// Whether a query has one of these parameters, however it is spelled.
fn has_one_of(query: &str, names: &[&str]) -> bool {
    let raw_names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    raw_names.filter_map(parameters::decode).any(|name| names.contains(&name.as_str()))
}

/// Who is counted as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Who has logged in, from wherever.
    Principal(String),
    /// Who has not: everybody at one address, or in one network of IPv6, where a single machine has as many as it likes.
    Address(Option<IpAddr>),
}

impl Caller {
    /// Who calls from this address and has not logged in.
    pub fn at(address: Option<IpAddr>) -> Caller {
        const NETWORK: u128 = u128::MAX << 64;
        Caller::Address(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            address @ IpAddr::V4(_) => address,
        }))
    }
}

/// As which one they are counted where only texts are known.
impl Display for Caller {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Principal(name) => f.write_str(name),
            Caller::Address(Some(IpAddr::V6(network))) => write!(f, "{network}/64"),
            Caller::Address(Some(address)) => Display::fmt(address, f),
            Caller::Address(None) => f.write_str("unknown"),
        }
    }
}

/// What is left of a limit after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Of what.
    pub kind: Kind,
    /// Calls in a minute.
    quota: u32,
    /// Calls that are left.
    left: u32,
    /// Set if there was none left for this call: seconds until there is.
    wait: Option<u32>,
}

impl Budget {
    /// Whether there was none left for this call.
    pub fn is_refused(&self) -> bool {
        self.wait.is_some()
    }

    /// `RateLimit-Policy`.
    pub fn policy(&self) -> String {
        format!("\"{}\";q={};w={WINDOW}", self.kind.as_str(), self.quota)
    }

    /// `RateLimit`.
    pub fn limit(&self) -> String {
        let seconds = self.wait.map_or(WINDOW, u64::from);
        format!("\"{}\";r={};t={seconds}", self.kind.as_str(), self.left)
    }

    /// Why there was none left, if that is so, and the seconds until there is.
    pub fn refusal(&self) -> Option<(String, u32)> {
        let (quota, what) = (self.quota, self.kind.in_words());
        let why = || format!("Each caller may have {quota} {what} a minute, and this one has had them");
        self.wait.map(|wait| (why(), wait))
    }

    /// The refusal, if it is one.
    pub fn checked(&self) -> Result<(), Problem> {
        let Some((detail, wait)) = self.refusal() else { return Ok(()) };
        let problem = Problem::new(&problem::RATE_LIMITED, detail).retry_after(wait);
        Err(problem.with("violated-policies", [self.kind.as_str()]))
    }
}

/// The limits of the process, which its HTTP workers share.
pub struct Limits {
    limiters: [Option<Limiter>; Kind::ALL.len()],
}

impl Limits {
    /// Those of these settings; a kind of which 0 are allowed is not limited.
    pub fn new(settings: &RateLimitSettings) -> Limits {
        let RateLimitSettings { reads, streams, operations, log_ins, definitions } = *settings;
        let limiter =
            |quota| NonZeroU32::new(quota).map(|quota| Limiter::new(quota, REMEMBERED, DefaultClock::default()));
        Limits { limiters: [reads, streams, operations, log_ins, definitions].map(limiter) }
    }

    /// Whether this kind is limited.
    pub fn has(&self, kind: Kind) -> bool {
        self.limiters[kind as usize].is_some()
    }

    /// Counts a call, and says what is left; `None` where nothing is limited.
    pub fn spend(&self, kind: Kind, caller: &Caller) -> Option<Budget> {
        self.limiters[kind as usize].as_ref().map(|limiter| limiter.spend(kind, caller))
    }
}

struct Limiter<C: Clock = DefaultClock> {
    quota: NonZeroU32,
    limiter: RateLimiter<Caller, Spent, C, StateInformationMiddleware>,
}

impl<C: Clock> Limiter<C> {
    fn new(quota: NonZeroU32, remembered: NonZeroUsize, clock: C) -> Self {
        let spent = Spent(Mutex::new(LruCache::new(remembered)));
        let limiter = RateLimiter::new(Quota::per_minute(quota), spent, clock);
        Limiter { quota, limiter }
    }

    fn spend(&self, kind: Kind, caller: &Caller) -> Budget {
        let (left, wait) = match self.limiter.check_key(caller) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(not_until) => (0, Some(self.wait(&not_until))),
        };
        Budget { kind, quota: self.quota.get(), left, wait }
    }

    /// Whole seconds after which there is one more.
    fn wait(&self, not_until: &NotUntil<C::Instant>) -> u32 {
        let wait = not_until.wait_time_from(self.limiter.clock().now());
        let seconds = wait.as_secs() + u64::from(wait > Duration::from_secs(wait.as_secs()));
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}

/// What callers have spent: as much of it as there is room for, however many of them there are.
struct Spent(Mutex<LruCache<Caller, Nanos>>);

impl StateStore for Spent {
    type Key = Caller;

    fn measure_and_replace<T, F, E>(&self, key: &Caller, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = spent.get_mut(key) {
            let (outcome, now) = judge(Some(*known))?;
            *known = now;
            return Ok(outcome);
        }
        let (outcome, now) = judge(None)?;
        spent.put(key.clone(), now);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn somebody(name: &str) -> Caller {
        Caller::Principal(name.to_owned())
    }

    fn limiter(quota: u32, remembered: usize) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let (quota, remembered) = (NonZeroU32::new(quota).unwrap(), NonZeroUsize::new(remembered).unwrap());
        (Limiter::new(quota, remembered, clock.clone()), clock)
    }

    #[test]
    fn each_caller_has_its_quota_and_not_one_more_until_time_has_passed() {
        let (limiter, clock) = limiter(3, 10);
        let spend = |name| limiter.spend(Kind::Reads, &somebody(name));
        let left: Vec<String> = (0..3).map(|_| spend("ada").limit()).collect();
        assert_eq!(left, ["\"reads\";r=2;t=60", "\"reads\";r=1;t=60", "\"reads\";r=0;t=60"]);
        let refused = spend("ada");
        assert!(refused.is_refused() && refused.checked().is_err());
        assert_eq!((refused.limit(), refused.policy()), ("\"reads\";r=0;t=20".into(), "\"reads\";q=3;w=60".into()));
        assert!(!spend("eve").is_refused(), "everybody has their own");

        clock.advance(Duration::from_millis(18_500));
        assert_eq!(spend("ada").limit(), "\"reads\";r=0;t=2", "and a half is a whole one more");
        clock.advance(Duration::from_millis(1_000));
        assert_eq!(spend("ada").limit(), "\"reads\";r=0;t=1", "half a second is a whole one to wait");
        clock.advance(Duration::from_millis(500));
        assert_eq!(spend("ada").limit(), "\"reads\";r=0;t=60", "one has come back");
        assert!(spend("ada").is_refused());
        clock.advance(Duration::from_secs(600));
        assert_eq!(spend("ada").limit(), "\"reads\";r=2;t=60", "no more than all of it comes back");
    }

    #[test]
    fn a_quota_that_is_more_than_one_in_a_second_waits_a_second() {
        let (limiter, _clock) = limiter(6_000, 1);
        for _ in 0..6_000 {
            assert!(!limiter.spend(Kind::LogIns, &Caller::at(None)).is_refused());
        }
        assert_eq!(limiter.spend(Kind::LogIns, &Caller::at(None)).limit(), "\"log_ins\";r=0;t=1");
    }

    #[test]
    fn who_was_not_seen_for_longest_is_forgotten() {
        let (limiter, _clock) = limiter(1, 2);
        let is_refused = |name: usize| limiter.spend(Kind::Reads, &somebody(&name.to_string())).is_refused();
        for name in 0..100_000 {
            assert!(!is_refused(name));
        }
        assert!(is_refused(99_999) && is_refused(99_998) && !is_refused(0));
        assert_eq!(limiter.limiter.into_state_store().0.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn an_address_is_one_caller_and_so_is_a_network_of_ipv6() {
        let at = |address: &str| Caller::at(Some(address.parse().unwrap()));
        assert_eq!(at("2001:db8:1:2:3::4"), at("2001:db8:1:2:ffff::1"));
        assert_ne!(at("2001:db8:1:2::4"), at("2001:db8:1:3::4"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(somebody("10.0.0.1"), at("10.0.0.1"));
    }

    #[test]
    fn calls_are_counted_by_their_parameters_however_these_are_spelled() {
        let counted = Counted::With(Kind::Reads, &["asOf", "asOfSequence"]);
        for query in ["asOf=x", "a=b&asOfSequence=1", "%61sOf=x", "asOf"] {
            assert_eq!(counted.kind_of(query), Some(Kind::Reads), "{query}");
        }
        for query in ["", "minSequence=3", "asof=x", "x=asOf", "a=b&c=asOf=1"] {
            assert_eq!(counted.kind_of(query), None, "{query}");
        }
        assert_eq!(
            (Counted::As(Kind::Streams).kind_of(""), Counted::Never.kind_of("asOf=x")),
            (Some(Kind::Streams), None)
        );
    }
}
