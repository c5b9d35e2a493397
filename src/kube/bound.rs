//! How much text of a Job is kept while a response is read, so that what one caller reads does not fill the memory of all.

use std::cell::Cell;
use std::io::Read;

/// Bytes of a Job's status that are kept: etcd's limit for the whole Job is 1.5 MiB, and Go's JSON has six bytes for a `<`.
pub(super) const LONG: usize = 7 << 18;
/// Bytes that a call for a longer answer needs: the text, what is parsed of it, and the answer that is made of it.
pub(crate) const LONG_ANSWER: usize = 3 * LONG;
/// Bytes of a usual answer's text, for which every call has room.
pub(crate) const USUAL_ANSWER: usize = 64 << 10;
/// Bytes of labels that a call keeps, with the memory for each: forty of them. The watch keeps more, for lists.
const LABELS: usize = 4 << 10;

/// What may still be kept.
#[derive(Clone, Copy, Debug)]
struct Left {
    text: usize,
    labels: usize,
    /// The text that is being read is kept.
    counts: bool,
    is_exceeded: bool,
}

const UNBOUNDED: Left = Left { text: usize::MAX, labels: usize::MAX, counts: false, is_exceeded: false };

thread_local! {
    static LEFT: Cell<Left> = const { Cell::new(UNBOUNDED) };
}

/// The text was longer.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TooLong;

/// Reads with a bound. `is_long`: there is memory for a [long answer](LONG_ANSWER).
pub(super) fn within<R>(is_long: bool, read: impl FnOnce() -> R) -> Result<R, TooLong> {
    let text = if is_long { LONG } else { USUAL_ANSWER };
    LEFT.set(Left { text, labels: LABELS, counts: false, is_exceeded: false });
    let unbind = Unbind;
    let result = read();
    let left = LEFT.get();
    drop(unbind);
    if left.is_exceeded { Err(TooLong) } else { Ok(result) }
}

/// Ends the bound, also where a panic ends what is read.
struct Unbind;

impl Drop for Unbind {
    fn drop(&mut self) {
        LEFT.set(UNBOUNDED)
    }
}

/// Keeps the text that `read` reads.
pub(super) fn keep<R>(read: impl FnOnce() -> R) -> R {
    LEFT.set(Left { counts: true, ..LEFT.get() });
    let result = read();
    LEFT.set(Left { counts: false, ..LEFT.get() });
    result
}

/// Whether labels of so many bytes may be kept.
pub(super) fn keeps_label(bytes: usize) -> bool {
    let left = LEFT.get();
    LEFT.set(Left { labels: left.labels.saturating_sub(bytes), ..left });
    left.labels >= bytes
}

/// Ends what is read beyond the bound.
pub(super) struct Bounded<R>(pub(super) R);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        let left = LEFT.get();
        if left.counts {
            let is_exceeded = left.is_exceeded || read > left.text;
            LEFT.set(Left { text: left.text.saturating_sub(read), is_exceeded, ..left });
            if is_exceeded {
                return Err(std::io::Error::other("it is too long"));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_kept_counts() {
        let text = vec![b'x'; LONG];
        let read = |bytes: usize| {
            let mut reader = Bounded(&text[..bytes]);
            std::io::copy(&mut reader, &mut std::io::sink()).is_ok()
        };
        assert_eq!(within(false, || read(LONG)), Ok(true));
        assert_eq!(within(false, || keep(|| read(USUAL_ANSWER))), Ok(true));
        assert_eq!(within(false, || keep(|| read(USUAL_ANSWER + 1))), Err(TooLong));
        assert_eq!(within(true, || keep(|| read(LONG))), Ok(true));
        assert_eq!(within(true, || keep(|| read(LONG)) && keep(|| read(1))), Err(TooLong));
        assert!(keep(|| read(LONG)), "others are not bounded");
    }

    #[test]
    fn a_panic_leaves_no_bound() {
        let panics = || {
            within(false, || {
                keep(|| {
                    if keeps_label(0) {
                        panic!("a defect")
                    }
                })
            })
        };
        assert!(std::panic::catch_unwind(panics).is_err());
        let left = LEFT.get();
        assert!(left.text == usize::MAX && !left.counts);
    }

    #[test]
    fn labels_are_kept_as_far_as_they_fit() {
        assert!(keeps_label(usize::MAX));
        let kept = within(false, || [keeps_label(LABELS), keeps_label(1)]);
        assert_eq!(kept, Ok([true, false]));
    }
}
