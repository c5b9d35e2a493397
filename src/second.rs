//! Text of a time that is printed once a second: in the head of each reply, and in front of each log line.

use std::time::SystemTime;

#[derive(Debug)]
pub(crate) struct Second {
    /// Since the epoch.
    second: u64,
    text: String,
}

impl Second {
    pub(crate) const fn new() -> Self {
        Second { second: u64::MAX, text: String::new() }
    }

    /// The text for `now`, which `print` makes when another second has begun. Its caller may change what is behind the second.
    pub(crate) fn text(&mut self, now: SystemTime, print: impl FnOnce() -> String) -> &mut String {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.second {
            *self = Second { second, text: print() }
        }
        &mut self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_text_is_printed_once_a_second() {
        let (mut second, mut printed) = (Second::new(), 0);
        let mut text = |milliseconds| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            second.text(now, || {
                printed += 1;
                printed.to_string()
            });
            second.text.clone()
        };
        assert_eq!([text(5_000), text(5_999), text(6_000), text(5_999)], ["1", "1", "2", "3"]);
    }
}
