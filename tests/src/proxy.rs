//! A network between a server and its database that can be cut, and that can stall.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// So much is passed on at a time, in bytes.
const CHUNK: usize = 16 * 1024;

/// Passes connections on, as long as it is not cut.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: Arc<watch::Sender<Network>>,
    _running: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Network {
    /// Connections are refused, and broken where there are some.
    cut: bool,
    /// Nothing is passed on, and nobody is told.
    stalled: bool,
    /// Connections that were made before the last so many silences are never heard of again.
    silences: u64,
}

impl Proxy {
    /// Listens on a free port and passes on to `host:port`; `open` from the start or not.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub async fn start(target: String, open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let network = Arc::new(watch::Sender::new(Network { cut: !open, ..Network::default() }));
        let state = Arc::clone(&network);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, target.clone(), state.subscribe()));
            }
        });
        Self { port, network, _running: running }
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections and lets none through.
    pub fn cut(&self) {
        self.network.send_modify(|network| network.cut = true);
    }

    /// Passes nothing on, in neither direction, and keeps all connections open. What comes meanwhile arrives later.
    pub fn stall(&self) {
        self.network.send_modify(|network| network.stalled = true);
    }

    /// From now on nothing passes on any connection that there is, although none is closed; new ones are as good as any.
    pub fn silence(&self) {
        self.network.send_modify(|network| network.silences += 1);
    }

    /// Lets connections through; what was stalled goes on.
    pub fn mend(&self) {
        self.network.send_modify(|network| (network.cut, network.stalled) = (false, false));
    }
}

async fn pass(stream: TcpStream, target: String, mut network: watch::Receiver<Network>) {
    let Network { cut, silences, .. } = *network.borrow_and_update();
    if cut {
        return;
    }
    let Ok(other) = TcpStream::connect(target).await else {
        return;
    };
    let ((from_server, to_server), (from_database, to_database)) = (stream.into_split(), other.into_split());
    let (there, back) = (network.clone(), network.clone());
    let both_ways = async {
        tokio::join!(copy(from_server, to_database, there, silences), copy(from_database, to_server, back, silences));
    };
    tokio::select! {
        () = both_ways => {}
        _cut = network.wait_for(|network| network.cut) => {}
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut network: watch::Receiver<Network>,
    silences: u64,
) {
    let mut chunk = [0; CHUNK];
    while let Ok(count) = from.read(&mut chunk).await
        && network.wait_for(|network| !network.stalled && network.silences == silences).await.is_ok()
    {
        if count == 0 || to.write_all(&chunk[..count]).await.is_err() {
            break;
        }
    }
    // What is written is read to its end by the other side.
    let _gone = to.shutdown().await;
}
