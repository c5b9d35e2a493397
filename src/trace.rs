//! The caller's trace, if it has one (W3C Trace Context). The dispatcher has no spans of its own: it passes on what it was given.

use crate::http::{Request, TRACE_PARENT};

/// Characters of the fields that version 00 has.
const LENGTH: usize = 55;

/// The header `traceparent` of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TraceParent<'r>(&'r str);

impl<'r> TraceParent<'r> {
    /// None if there is none, more than one, or one that is invalid (Trace Context 3.2.2). Of later versions the fields of version 00 are read.
    pub(crate) fn of(request: &'r Request) -> Option<Self> {
        let mut all = request.values(TRACE_PARENT);
        let (value, None) = (std::str::from_utf8(all.next()?).ok()?, all.next()) else { return None };
        let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        let is_hex = |digits: &&str| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let has_end = match value.get(..2)? {
            "00" => value.len() == LENGTH,
            "ff" => false,
            _ => value.get(LENGTH..)?.is_empty() || value[LENGTH..].starts_with('-'),
        };
        let fields: Vec<_> = value.get(..LENGTH)?.split('-').collect();
        let [_, trace, parent, _] = fields[..] else { return None };
        let is_valid = has_end
            && fields.iter().map(|field| field.len()).eq([2, 32, 16, 2])
            && fields.iter().all(is_hex)
            && !is_zero(trace)
            && !is_zero(parent);
        is_valid.then_some(TraceParent(&value[..LENGTH]))
    }

    /// 32 hexadecimal digits.
    pub(crate) fn trace_id(self) -> &'r str {
        &self.0[3..35]
    }

    /// In version 00, whatever version it came in: of a later one only the flag `sampled` has a meaning (Trace Context 3.2.3).
    pub(crate) fn header(self) -> String {
        let (fields, flags) = self.0.split_at(LENGTH - 2);
        let is_sampled = flags.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']);
        let flags = match fields.starts_with("00") {
            true => flags,
            false if is_sampled => "01",
            false => "00",
        };
        ["00", &fields[2..], flags].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces() {
        let of = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("Traceparent", *value)).collect();
            TraceParent::of(&Request::of(&headers)).map(|trace| (trace.trace_id().to_owned(), trace.header()))
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = format!("00-{trace}-00f067aa0ba902b7-01");
        let want = Some((trace.to_owned(), valid.clone()));
        assert_eq!(of(&[&valid]), want);
        let later = format!("cc{}", &valid[2..]);
        assert_eq!([of(&[&later]), of(&[&format!("{later}-what-the-future-brings")])], [want.clone(), want]);
        let flags = |flags: &str| of(&[&format!("cc{}{flags}", &valid[2..53])]).unwrap().1[53..].to_owned();
        assert_eq!([flags("ff"), flags("fe"), flags("03")], ["01", "00", "01"]);
        for bad in [
            "",
            "00",
            &valid[1..],
            &format!("{valid}-"),
            &format!("{later}x"),
            &format!("ff{}", &valid[2..]),
            &valid.to_uppercase(),
            &valid.replace(trace, &"0".repeat(32)),
            &valid.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &valid.replace('-', "_"),
            &valid.replacen("4b", "-b", 1),
            &valid.replace("01", "é"),
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[&valid, &valid]), None);
        assert_eq!(of(&[]), None);
    }
}
