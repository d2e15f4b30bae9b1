//! "Did you mean …?" for misspelt names.

/// Names longer than this get no suggestion, so that a huge input costs nothing.
const LONGEST: usize = 64;

/// The known name that `wanted` is most likely a misspelling of, if any is near.
pub(super) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.is_empty() || wanted.len() > LONGEST {
        return None;
    }
    let wanted = wanted.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (wanted.len().max(name.len()) / 4).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["listen", "database_url", "worker.suspect_after"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("databse_ulr", known), Some("database_url"));
        assert_eq!(nearest("worker_suspect_after", known), Some("worker.suspect_after"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"listen".repeat(20), known), None);
    }
}
