//! The monthly cost of a store, from a table of list prices. Prices change, so `doctor` shows their
//! date.

/// The month of these prices.
pub(crate) const AS_OF: &str = "2026-11";

/// Prices in US dollars, in us-east-1, without free tiers.
mod usd {
    /// A customer managed KMS key.
    pub(super) const KMS_KEY: f64 = 1.0;
    /// A KMS request, one of which decrypts each key that is read.
    pub(super) const KMS_REQUEST: f64 = 0.03 / 10_000.0;
    pub(super) const ADVANCED_PARAMETER: f64 = 0.05;
    pub(super) const ADVANCED_REQUEST: f64 = 0.05 / 10_000.0;
    pub(super) const SECRET: f64 = 0.40;
    pub(super) const SECRET_REQUEST: f64 = 0.05 / 10_000.0;
}

const DAYS: f64 = 30.0;

/// A kind of store with its limit and its costs.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    /// The number of keys that fit in an account and region.
    pub(crate) limit: Option<u64>,
    fixed: f64,
    each_key: f64,
    each_read: f64,
}

pub(crate) const FILE: Backend = Backend { name: "file", limit: None, fixed: 0.0, each_key: 0.0, each_read: 0.0 };

pub(crate) const SSM_STANDARD: Backend = Backend {
    name: "ssm, standard tier",
    limit: Some(10_000),
    fixed: usd::KMS_KEY,
    each_key: 0.0,
    each_read: usd::KMS_REQUEST,
};

pub(crate) const SSM_ADVANCED: Backend = Backend {
    name: "ssm, advanced tier",
    limit: Some(100_000),
    fixed: usd::KMS_KEY,
    each_key: usd::ADVANCED_PARAMETER,
    each_read: usd::KMS_REQUEST + usd::ADVANCED_REQUEST,
};

pub(crate) const SECRETS_MANAGER: Backend = Backend {
    name: "secretsmanager",
    limit: Some(500_000),
    fixed: usd::KMS_KEY,
    each_key: usd::SECRET,
    each_read: usd::KMS_REQUEST + usd::SECRET_REQUEST,
};

pub(crate) const ALL: [Backend; 4] = [FILE, SSM_STANDARD, SSM_ADVANCED, SECRETS_MANAGER];

impl Backend {
    /// Returns the monthly cost for this number of users, each read once a day; `None` if they do
    /// not fit.
    pub(crate) fn monthly(&self, users: u64) -> Option<f64> {
        if self.limit.is_some_and(|limit| users > limit) {
            return None;
        }
        // Numbers of users are small enough to be exact in f64.
        let users = users as f64;
        Some(self.fixed + users * (self.each_key + DAYS * self.each_read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_costs_are_those_that_the_projects_readme_tells() {
        let rounded = |backend: &Backend, users| backend.monthly(users).map(f64::round);
        assert_eq!(ALL.map(|backend| rounded(&backend, 10_000)), [0.0, 2.0, 503.0, 4_003.0].map(Some));
        assert_eq!(ALL.map(|backend| rounded(&backend, 100_000)), [Some(0.0), None, Some(5_025.0), Some(40_025.0)]);
    }
}
