//! A batch of changesets: judged in order, and written.

use gh_core::domain::changeset::Changeset;
use gh_core::domain::rules::Rules;
use gh_core::ports::store::Conflict;
use sqlx::{Connection, PgConnection};

use crate::errors::{Failure, store_error};
use crate::footprint::Footprint;
use crate::held::Held;
use crate::lock::{Waiting, lock};
use crate::store::Surroundings;
use crate::write::{is_one_statement, write};

/// Stores changesets in the transaction of this connection, in order and each by itself: locks, judges, writes.
///
/// After a failure the transaction is of no use any more and has to be rolled back.
pub(crate) async fn store(
    connection: &mut PgConnection,
    changes: &[Changeset],
    rules: &Rules,
    waiting: Waiting,
    surroundings: &Surroundings,
) -> Result<(Vec<Result<(), Conflict>>, Held), Failure> {
    let mut held = lock(connection, &Footprint::of(changes), waiting, surroundings).await?;
    let mut refused: Vec<&Changeset> = Vec::new();
    let mut answers = Vec::with_capacity(changes.len());
    for changeset in changes {
        let on_sand = refused.iter().any(|earlier| changeset.builds_on(earlier));
        let answer = if on_sand { Err(Conflict) } else { held.take(changeset, rules) };
        if answer.is_err() {
            refused.push(changeset);
        }
        answers.push(answer);
    }
    if answers.iter().any(Result::is_ok) {
        write(connection, &held).await?;
    }
    Ok((answers, held))
}

/// Writes what is held in a transaction of its own; that of the statement, where there is only one.
pub(crate) async fn write_alone(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    if is_one_statement(held) {
        return write(connection, held).await;
    }
    let mut transaction = connection.begin().await?;
    write(&mut transaction, held).await?;
    // Whether it was stored is not known if the connection breaks meanwhile, so then it is never done again.
    transaction.commit().await.map_err(|error| Failure::Final(store_error(error)))
}
