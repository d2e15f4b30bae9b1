//! What a failure of the database means, by its SQLSTATE.

use std::error::Error;

use gh_core::ports::store::StoreError;

/// Why a piece of work on the database did not come about. Nothing of it is stored.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another transaction came in between: it is worth doing all of it again at once.
    Again(StoreError),
    /// It is of no use to do it again here.
    Final(StoreError),
}

impl Failure {
    /// Somebody else wrote a row after it was looked for and before it was locked.
    pub(crate) const fn overtaken() -> Self {
        Self::Again(StoreError::Unavailable(None))
    }

    /// What the caller is told when it is not tried again.
    pub(crate) fn into_error(self) -> StoreError {
        match self {
            Self::Again(error) | Self::Final(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(|error| error.code()).as_deref().map(Meaning::of) {
            Some(Meaning::Overtaken) => Self::Again(StoreError::Unavailable(Some(Box::new(error)))),
            // Ids are unique, so a second try sees what the first one ran into. If not, it is a defect.
            Some(Meaning::Twice) => Self::Again(StoreError::Internal(Box::new(error))),
            Some(Meaning::Away) => Self::Final(StoreError::Unavailable(Some(Box::new(error)))),
            Some(Meaning::Refused) => Self::Final(StoreError::Internal(Box::new(error))),
            None => Self::Final(of_connection(error)),
        }
    }
}

/// Whether a failure may be over without anybody changing anything.
pub(crate) fn passes_by_itself(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            !matches!(database.code().as_deref().map(Meaning::of), Some(Meaning::Refused | Meaning::Twice) | None)
        }
        // Whom TLS does not trust, it will not trust later.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => false,
        // What stands before a database that is away, such as a proxy, ends connections in the middle of a word.
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        _ => false,
    }
}

/// Whether a write failed because the database takes none.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("25006")
}

/// Whether a connection was lost, and others probably with it: the network, or the database went away.
pub(crate) fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(database) => {
            database.code().is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02"))
        }
        _ => false,
    }
}

/// The store's error for a statement that stands by itself.
pub(crate) fn store_error(error: sqlx::Error) -> StoreError {
    Failure::from(error).into_error()
}

/// A row of this table makes no sense; the key says which, and nothing says what is in it.
pub(crate) fn corrupt(table: &str, key: impl std::fmt::Display, what: &str) -> StoreError {
    StoreError::Corrupt(format!("{table} {key}: {what}"))
}

/// A value cannot be written as it should be: a defect.
pub(crate) fn internal(error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Internal(Box::new(error))
}

/// What a class of SQLSTATE means for the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Serialization failure or deadlock, or a row that is not as it was (`gh_refuse`).
    Overtaken,
    /// Something is there already.
    Twice,
    /// The database is away, too busy, read-only, or took too long.
    Away,
    /// It does not take what it was given.
    Refused,
}

impl Meaning {
    fn of(sqlstate: &str) -> Self {
        match sqlstate {
            "40001" | "40P01" | "GH001" => Self::Overtaken,
            "23505" => Self::Twice,
            // Read-only transaction; lock not available; idle in transaction for too long.
            "25006" | "55P03" | "25P03" => Self::Away,
            // Connection, resources, operator intervention (shutdown, cancelled by a time limit), system.
            _ => match sqlstate.get(..2) {
                Some("08" | "53" | "57" | "58") => Self::Away,
                _ => Self::Refused,
            },
        }
    }
}

/// Failures that are not the database's answer.
fn of_connection(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(Some(Box::new(error))),
        _ => StoreError::Internal(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_sqlstate_has_one_meaning() {
        let table = [
            ("40001", Meaning::Overtaken),
            ("40P01", Meaning::Overtaken),
            ("GH001", Meaning::Overtaken),
            ("23505", Meaning::Twice),
            ("08006", Meaning::Away),
            ("53300", Meaning::Away),
            ("57014", Meaning::Away),
            ("57P01", Meaning::Away),
            ("58030", Meaning::Away),
            ("25006", Meaning::Away),
            ("25P03", Meaning::Away),
            ("55P03", Meaning::Away),
            ("23514", Meaning::Refused),
            ("22P05", Meaning::Refused),
            ("42501", Meaning::Refused),
            ("42P01", Meaning::Refused),
        ];
        for (sqlstate, meaning) in table {
            assert_eq!(Meaning::of(sqlstate), meaning, "{sqlstate}");
        }
    }

    #[test]
    fn who_is_not_there_may_come_and_who_is_not_trusted_stays_so() {
        use std::io::{Error, ErrorKind};
        for kind in
            [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::NotFound]
        {
            assert!(passes_by_itself(&sqlx::Error::Io(Error::from(kind))), "{kind}");
        }
        assert!(!passes_by_itself(&sqlx::Error::Io(Error::from(ErrorKind::InvalidData))));
        assert!(!passes_by_itself(&sqlx::Error::Tls("no trust".into())));
    }

    #[test]
    fn a_pool_without_a_free_connection_is_unavailable() {
        assert!(matches!(store_error(sqlx::Error::PoolTimedOut), StoreError::Unavailable(Some(_))));
    }
}
