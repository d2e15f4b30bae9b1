//! Two servers under load, and what must hold when it is over.

use std::sync::Arc;

use gh_tests::{Addresses, Audit, BRISK, Load, LoadSize, Receiver, Server};

/// A load for a test that is over in seconds.
pub(crate) fn size() -> LoadSize {
    LoadSize { clients: 3, workers: 6, targets: 2, open_jobs: 24 }
}

/// Two servers on one database, a receiver of callbacks, and a load that goes on.
pub(crate) struct Stage {
    /// What servers are told.
    pub(crate) database_url: String,
    pub(crate) addresses: Addresses,
    pub(crate) servers: Vec<Server>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) load: Load,
}

impl Stage {
    pub(crate) async fn start(database_url: &str, size: &LoadSize) -> Self {
        let (first, second) = tokio::join!(server(database_url), server(database_url));
        let (addresses, receiver) = (Addresses::default(), Arc::new(Receiver::start().await));
        addresses.set([first.base_url().to_owned(), second.base_url().to_owned()]);
        let load = Load::start(&addresses, &receiver, size);
        let stage =
            Self { database_url: database_url.to_owned(), addresses, servers: vec![first, second], receiver, load };
        stage.load.ledger().grows_by(60).await;
        stage
    }

    /// Lets everything come to its end, and checks all of it; `url` is where the database is without detours.
    pub(crate) async fn check(mut self, url: &str) {
        self.load.check();
        self.load.stop_submitting().await;
        let audit = Audit::when_all_has_ended(url).await;
        self.load.check();
        audit.check(&self.load.ledger().all(), &self.receiver.arrivals());
        assert!(audit.starts().len() >= audit.jobs() / 2, "most jobs were run");
    }
}

/// A server that notices within seconds when workers are lost.
pub(crate) async fn server(database_url: &str) -> Server {
    Server::ready_on(database_url, &BRISK).await
}
