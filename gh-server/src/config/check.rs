//! What must hold between settings, each valid on its own.

use std::collections::BTreeMap;

use gh_core::domain::policy::PolicyError;
use secrecy::ExposeSecret;

use super::keys::NamedKey;
use super::settings::Config;
use super::values::show_span;
use super::{Problem, Profile};

/// Fewest characters of a key outside of `dev`.
const SHORTEST_KEY: usize = 8;

/// Every rule that the settings break together.
pub(super) fn problems(config: &Config, profile: Profile) -> Vec<Problem> {
    let mut problems = Vec::from_iter(worker_times(config));
    problems.extend(distinct_keys(config));
    match profile {
        Profile::Dev if !config.listen.ip().to_canonical().is_loopback() => problems.push(Problem::new(
            "listen",
            format!("`dev` listens on loopback only, and {} is not; use `gh-server serve` there", config.listen),
        )),
        Profile::Dev => {}
        Profile::Migrate => problems.extend(database_url(config)),
        Profile::Serve => {
            problems.extend(long_keys(config));
            problems.extend(database_url(config));
            for (place, keys) in [("service_keys", &config.service_keys), ("worker_keys", &config.worker_keys)] {
                if keys.is_empty() {
                    problems.push(Problem::new(place, "at least one key is needed"));
                }
            }
        }
    }
    problems
}

/// Not asked of `dev`: it has no use for the URL, which may well be there for another program.
fn database_url(config: &Config) -> Option<Problem> {
    let Some(url) = &config.database_url else {
        return Some(Problem::new("database_url", "`serve` needs a PostgreSQL; `gh-server dev` runs in memory"));
    };
    let error = gh_adapters_postgres::parse_address(url.expose_secret()).err()?;
    Some(Problem::new("database_url", error.to_string()))
}

/// The rule is the core's; here it gets the names that the operator wrote.
fn worker_times(config: &Config) -> Option<Problem> {
    let PolicyError::SilenceOrder { heartbeat, suspect, self_fence, offline } = config.policy().check().err()?;
    let [heartbeat, suspect, fence, offline] = [heartbeat, suspect, self_fence, offline].map(show_span);
    Some(Problem::new(
        "worker",
        format!(
            "2 × heartbeat_interval ({heartbeat}) ≤ suspect_after ({suspect}) < self_fence_after ({fence}) < \
             offline_after ({offline}) does not hold"
        ),
    ))
}

/// A key must say whose it is: the same one twice under two names, or for clients and workers, would not.
fn distinct_keys(config: &Config) -> Vec<Problem> {
    let mut owners: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let lists = [("service_keys", &config.service_keys), ("worker_keys", &config.worker_keys)];
    let all = lists.iter().flat_map(|(list, keys)| keys.iter().enumerate().map(move |(at, key)| (*list, at, key)));
    all.filter_map(|(list, at, NamedKey { name, key })| {
        match owners.insert(key.expose_secret(), (list, name.as_str())) {
            Some((other, _)) if other != list => {
                Some(Problem::new(format!("{list}[{at}]"), format!("the same key stands in `{other}`")))
            }
            Some((_, other)) if other != name => {
                Some(Problem::new(format!("{list}[{at}]"), "the same key stands under another name too"))
            }
            _ => None,
        }
    })
    .collect()
}

fn long_keys(config: &Config) -> Vec<Problem> {
    let lists = [("service_keys", &config.service_keys), ("worker_keys", &config.worker_keys)];
    let named = lists
        .iter()
        .flat_map(|(list, keys)| keys.iter().enumerate().map(move |(at, key)| (format!("{list}[{at}]"), &key.key)));
    let callbacks = config.callback_service_key.any.iter().chain(config.callback_service_key.by_destination.values());
    named
        .chain(callbacks.map(|key| ("callback_service_key".to_owned(), key)))
        .filter(|(_, key)| key.expose_secret().len() < SHORTEST_KEY)
        .map(|(place, _)| Problem::new(place, format!("the key is shorter than {SHORTEST_KEY} characters")))
        .collect()
}
