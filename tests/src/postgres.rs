//! A PostgreSQL of a test's own, which it may stop, start and configure as it likes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// PostgreSQL refuses to run as root; then it runs as this user, as `scripts/with-postgres` has it.
const OWNER: &str = "postgres";

/// A running PostgreSQL that writes through to the disk; stopped and removed when it is dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    programs: PathBuf,
    as_root: bool,
    folder: TempDir,
    port: u16,
}

impl PrivatePostgres {
    /// Makes one, with these settings (`name=value`) beside its own.
    ///
    /// # Panics
    ///
    /// When there are no server programs, or they do not start: with what they said.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let programs = programs();
        let as_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        let folder = tempfile::Builder::new().prefix("gh-own-pg.").tempdir().expect("a folder");
        if as_root {
            let owned = Command::new("chown").arg(OWNER).arg(folder.path()).status();
            assert!(owned.expect("chown runs").success(), "the folder cannot be given to {OWNER}");
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("a bound address").port();
        drop(free);
        let server = Self { programs, as_root, folder, port };
        server.run("initdb", &["-U", "gh", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let folder = server.folder.path().display();
        let mut configuration = format!(
            "port = {port}\nunix_socket_directories = '{folder}'\nlisten_addresses = '127.0.0.1'\n\
             max_connections = 100\nshared_buffers = '64MB'\nlog_line_prefix = '%m %p '\n"
        );
        configuration.extend(settings.iter().map(|setting| format!("{setting}\n")));
        fs::write(server.data().join("postgresql.auto.conf"), configuration).expect("the configuration can be written");
        server.start_again();
        server
    }

    /// The address of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://gh@127.0.0.1:{}/{database}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Pulls the plug: all of its processes end at once, and nothing is written any more.
    ///
    /// # Panics
    ///
    /// When it is not running.
    pub fn stop_immediately(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    /// Starts it after a stop, and waits until it has recovered.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_again(&self) {
        let log = self.log_file();
        self.run("pg_ctl", &["start", "-w", "-t", "60", "-l", &log.to_string_lossy()]);
    }

    /// Everything it has logged so far.
    ///
    /// # Panics
    ///
    /// When the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).expect("the log can be read")).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.output(program, arguments).unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            fs::read_to_string(self.log_file()).unwrap_or_default(),
        );
    }

    fn output(&self, program: &str, arguments: &[&str]) -> std::io::Result<Output> {
        let program = self.programs.join(program);
        let mut command = if self.as_root {
            let mut command = Command::new("runuser");
            command.args(["-u", OWNER, "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // What it starts keeps what it inherits: a pipe would never end. Its owner may not enter every folder.
        let said = tempfile::tempfile()?;
        let status = command
            .args(arguments)
            .arg("-D")
            .arg(self.data())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said.try_clone()?)
            .status()?;
        Ok(Output { status, stdout: read_again(said)?, stderr: Vec::new() })
    }
}

fn read_again(mut file: fs::File) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // It may be stopped already.
        let _stopped = self.output("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }
}

/// The folder of the server programs: the one that `scripts/with-postgres` found, else the newest of Debian's.
fn programs() -> PathBuf {
    if let Some(told) = std::env::var_os("TEST_DATABASE_PROGRAMS") {
        return told.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.map(|version| Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin"));
    newest.unwrap_or_else(|| {
        panic!("found no server programs of PostgreSQL: set TEST_DATABASE_PROGRAMS to their folder (that of pg_ctl)")
    })
}
