//! [`Script`]: the choice of the fault that a call meets.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use keystead_core::{ErrorKind, Operation};

use super::Fault;

/// The answer that the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The answer of the store beneath.
    Real,
    Error(ErrorKind),
    /// No answer: the call never ends.
    None,
}

/// The prepared faults, and the number of calls so far.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) faults: VecDeque<Fault>,
    pub(super) chance: Option<Chance>,
    pub(super) calls: HashMap<Operation, u64>,
}

/// The seeded faults.
#[derive(Debug)]
pub(super) struct Chance {
    random: fastrand::Rng,
    failure_rate: f64,
    kinds: Vec<ErrorKind>,
    /// In nanoseconds.
    latency: RangeInclusive<u64>,
    applied_rate: f64,
}

impl Script {
    pub(super) fn new(faults: Vec<Fault>, chance: Option<Chance>) -> Self {
        Self { faults: faults.into(), chance, calls: HashMap::new() }
    }

    /// Counts a call and returns the fault that it meets.
    pub(super) fn next(&mut self, operation: Operation) -> Fault {
        self.count(operation, 1);
        self.faults.retain(|fault| fault.times > 0);
        if let Some(fault) = self.faults.iter_mut().find(|fault| fault.is_for(operation)) {
            fault.times -= 1;
            return fault.clone();
        }
        self.chance.as_mut().map_or(Fault::latency(Duration::ZERO), Chance::draw)
    }

    pub(super) fn count(&mut self, operation: Operation, calls: u64) {
        *self.calls.entry(operation).or_default() += calls;
    }

    pub(super) fn is_free_of(&self, operation: Operation) -> bool {
        self.chance.is_none() && !self.faults.iter().any(|fault| fault.is_for(operation))
    }
}

impl Fault {
    fn is_for(&self, operation: Operation) -> bool {
        self.times > 0 && self.on.is_none_or(|on| on == operation)
    }
}

impl Chance {
    /// Creates the seeded faults, or returns `None` if none can occur.
    pub(super) fn new(
        seed: u64,
        failure_rate: f64,
        kinds: Vec<ErrorKind>,
        latency: RangeInclusive<Duration>,
        applied_rate: f64,
    ) -> Option<Self> {
        let nanoseconds = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let latency = nanoseconds(latency.start())..=nanoseconds(latency.end());
        let random = fastrand::Rng::with_seed(seed);
        let ever = failure_rate > 0.0 || *latency.end() > 0;
        ever.then_some(Self { random, failure_rate, kinds, latency, applied_rate })
    }

    fn draw(&mut self) -> Fault {
        // All four values are drawn each time, so that the outcome of this call does not change
        // those of later calls.
        let pause = Duration::from_nanos(self.random.u64(self.latency.clone()));
        let fails = self.random.f64() < self.failure_rate;
        let kind = self.random.choice(&self.kinds).copied();
        let applied = self.random.f64() < self.applied_rate;
        match kind {
            Some(kind) if fails => Fault { pause, applied, ..Fault::error(kind) },
            _ => Fault::latency(pause),
        }
    }
}
