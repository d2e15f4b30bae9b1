//! Logging: `tracing` events to stderr, as text for people or JSON for machines; panics take the same way.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::{Config, LogFormat};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The filter is not one; the configuration's check lets none such through.
    #[error("the log filter is invalid")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Somebody started logging in this process before.
    #[error("logging was started twice")]
    Twice(#[source] TryInitError),
}

/// What the database's driver logs by itself is told by those whom it happens to, so it is only logged where the
/// configured filter, which comes after this, names the driver.
const QUIET: &str = "sqlx=off,sqlx_core=off";

/// Starts logging for the whole process as configured. To be called once.
pub(crate) fn start(config: &Config) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log_filter)).map_err(LoggingError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
            builder.with_ansi(colours).finish().try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).finish().try_init(),
    }
    .map_err(LoggingError::Twice)?;
    log_panics();
    Ok(())
}

/// Logs every panic from now on; where the filter lets no errors through, the former hook still tells it.
fn log_panics() {
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(Level::ERROR) {
            log_panic(panic);
        } else {
            former(panic);
        }
    }));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let reason = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current().name().map(str::to_owned);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(location, thread, backtrace, "panicked: {reason}");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_becomes_one_log_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        log_panics();
        tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| panic!("the {} broke", "widget")).unwrap_err();
        });
        let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["fields"]["message"], "panicked: the widget broke");
        assert!(line["fields"]["location"].as_str().unwrap().contains("logging.rs"));
    }
}
