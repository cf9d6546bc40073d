//! What happened, as a hash, and as text when somebody wants to read it.

use std::fmt::{Arguments, Write};

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Trace {
            hash: 0xCBF2_9CE4_8422_2325,
            print,
        }
    }

    /// One line, at this many nanoseconds of the run.
    pub fn line(&mut self, now: u64, what: Arguments<'_>) {
        self.add(&now.to_le_bytes());
        // Writing into a hash cannot fail.
        let _ = self.write_fmt(what);
        if self.print {
            println!("{:>12.6} {what}", now as f64 / 1e9);
        }
    }

    /// A line for the reader alone.
    pub fn remark(&self, now: u64, what: Arguments<'_>) {
        if self.print {
            println!("{:>12.6}   . {what}", now as f64 / 1e9);
        }
    }

    pub fn printing(&self) -> bool {
        self.print
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}
