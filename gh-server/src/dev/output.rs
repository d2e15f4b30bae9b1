//! Writing to the terminal: whoever reads may go away, which must not end the server.

use std::fmt;
use std::io::Write;

/// Writes a line to stdout.
pub(super) fn line(text: impl fmt::Display) {
    // Nobody reads any more: there is nobody to tell either.
    let _unread = writeln!(std::io::stdout().lock(), "{text}");
}
