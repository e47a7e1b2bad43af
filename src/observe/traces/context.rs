//! Which trace a request belongs to, as [W3C Trace Context] has it said: the field `traceparent`, and
//! whether a trace is sampled. Pure; random numbers are arguments.
//!
//! The rule: a field that is not exactly as the recommendation says begins another trace, and never
//! half of one goes on.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

use serde::{Deserialize, Serialize};

use crate::config::Share;

/// Names a trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within its trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The id that `dice`, any number, makes.
    pub fn new(dice: u128) -> Self {
        Self(dice.max(1).to_be_bytes())
    }

    /// Whether it is among the share of all traces that is sampled. Everybody who looks at the same
    /// bytes of an id, as the samplers of OpenTelemetry do, decides alike.
    fn is_within(self, share: Share) -> bool {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        u128::from(place) * u128::from(Share::WHOLE.millionths()) < (u128::from(share.millionths()) << 63)
    }
}

impl SpanId {
    /// The id that `dice`, any number, makes.
    pub fn new(dice: u64) -> Self {
        Self(dice.max(1).to_be_bytes())
    }
}

/// A span as others are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace that it is of.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Whether it is recorded, and what follows from it should be.
    pub is_sampled: bool,
}

impl Context {
    /// What a field `traceparent` says; `None` when that makes no sense.
    pub fn parse(field: &[u8]) -> Option<Self> {
        let (fixed, more) = field.split_at_checked(Self::FIELD_BYTES)?;
        let [version, trace, span, flags] = [0..2, 3..35, 36..52, 53..55].map(|place| &fixed[place]);
        let is_divided = [2, 35, 52].iter().all(|place| fixed[*place] == b'-');
        let is_of_version = match digits::<1>(version)? {
            [0xFF] => false,
            [0] => more.is_empty(),
            _ => more.is_empty() || more.starts_with(b"-"), // What later versions may add.
        };
        let (trace, span, [flags]) = (TraceId(digits(trace)?), SpanId(digits(span)?), digits(flags)?);
        let is_valid = is_divided && is_of_version && trace.0 != [0; 16] && span.0 != [0; 8];
        is_valid.then_some(Self { trace, span, is_sampled: flags & Self::SAMPLED != 0 })
    }

    /// As a field `traceparent` says it.
    pub fn to_field(self) -> [u8; Self::FIELD_BYTES] {
        let mut field = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_digits(&mut field[3..35], &self.trace.0);
        write_digits(&mut field[36..52], &self.span.0);
        write_digits(&mut field[53..55], &[if self.is_sampled { Self::SAMPLED } else { 0 }]);
        field
    }

    /// Bytes of a field of version 00.
    const FIELD_BYTES: usize = 55;

    const SAMPLED: u8 = 1;
}

/// Where the span of a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The span.
    pub context: Context,
    /// The span of whoever has asked; `None` where a trace begins.
    pub parent: Option<SpanId>,
}

impl Beginning {
    /// Of a request that says `fields`, each a `traceparent`, to whoever is to go on with that; of
    /// the traces that begin here this `share` is sampled.
    pub fn of<'a>(mut fields: impl Iterator<Item = &'a [u8]>, share: Share, dice: (u128, u64)) -> Self {
        let said = fields.next().filter(|_| fields.next().is_none()).and_then(Context::parse);
        let span = SpanId::new(dice.1);
        match said {
            Some(said) => Self { context: Context { span, ..said }, parent: Some(said.span) },
            None => {
                let trace = TraceId::new(dice.0);
                Self { context: Context { trace, span, is_sampled: trace.is_within(share) }, parent: None }
            }
        }
    }
}

/// The bytes that hexadecimal digits stand for, in lower case, as the recommendation wants it.
fn digits<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_digits(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xF)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn context(is_sampled: bool) -> Context {
        let trace = TraceId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        Context { trace, span: SpanId(0xb7ad_6b71_6920_3331_u64.to_be_bytes()), is_sampled }
    }

    #[test]
    fn a_field_is_read_as_the_recommendation_says() {
        #[track_caller]
        fn check(field: &str, is_sampled: Option<bool>) {
            let field = field.replace("TRACE", TRACE).replace("SPAN", SPAN);
            assert_eq!(Context::parse(field.as_bytes()), is_sampled.map(context), "{field:?}");
        }

        check("00-TRACE-SPAN-01", Some(true));
        check("00-TRACE-SPAN-00", Some(false));
        // Flags that nobody knows yet.
        check("00-TRACE-SPAN-03", Some(true));
        check("00-TRACE-SPAN-fe", Some(false));
        // Versions that nobody knows yet.
        check("01-TRACE-SPAN-01", Some(true));
        check("cc-TRACE-SPAN-01-what-the-future-will-be-like", Some(true));
        check("cc-TRACE-SPAN-01-", Some(true));
        check("cc-TRACE-SPAN-01.what", None);
        check("ff-TRACE-SPAN-01", None);
        check("00-TRACE-SPAN-01-", None);
        check("00-TRACE-SPAN-01-more", None);
        check("00-00000000000000000000000000000000-SPAN-01", None);
        check("00-TRACE-0000000000000000-01", None);
        check("00-0AF7651916CD43DD8448EB211C80319C-SPAN-01", None);
        check("00-TRACE-B7AD6B7169203331-01", None);
        check("0A-TRACE-SPAN-01", None);
        check("00-TRACE-SPAN-0A", None);
        check("00-TRACE-SPAN-0", None);
        check("00-TRACE-SPAN-", None);
        check("00_TRACE-SPAN-01", None);
        check("00-TRACE_SPAN-01", None);
        check("00-TRACE-SPAN_01", None);
        check("00-TRACE-SPAN-1g", None);
        check("00-.af7651916cd43dd8448eb211c80319c-SPAN-01", None);
        check(" 00-TRACE-SPAN-01", None);
        check("0-TRACE-SPAN-01", None);
        check("TRACE", None);
        check("", None);
        check("é0-TRACE-SPAN-01", None);
    }

    #[test]
    fn what_is_said_is_read_again() {
        for is_sampled in [true, false] {
            let field = context(is_sampled).to_field();
            assert_eq!(Context::parse(&field), Some(context(is_sampled)), "{}", String::from_utf8_lossy(&field));
        }
    }

    #[test]
    fn a_trace_goes_on_or_begins() {
        let share = |millionths| Share::new(millionths).expect("a share");
        let (all, none) = (Share::WHOLE, share(0));
        let sampled = context(true).to_field();
        let not_sampled = context(false).to_field();
        let check = |fields: &[&[u8]], share, parent: Option<Context>, is_sampled| {
            let begun = Beginning::of(fields.iter().copied(), share, (7, 8));
            let trace = parent.map_or(TraceId::new(7), |parent| parent.trace);
            assert_eq!(begun.context, Context { trace, span: SpanId::new(8), is_sampled }, "{fields:?}");
            assert_eq!(begun.parent, parent.map(|parent| parent.span), "{fields:?}");
        };

        check(&[], all, None, true);
        check(&[], none, None, false);
        // Whoever has begun the trace has decided.
        check(&[&sampled], none, Some(context(true)), true);
        check(&[&not_sampled], all, Some(context(false)), false);
        // What makes no sense says nothing; nor do two that may contradict each other.
        check(&[b"00-x"], all, None, true);
        check(&[&sampled, &sampled], none, None, false);
    }

    #[test]
    fn a_share_of_traces_is_sampled() {
        #[track_caller]
        fn check(place: u64, millionths: u32, expected: bool) {
            let share = Share::new(millionths).expect("a share");
            // The upper half of an id counts for nothing.
            for upper in [0, u64::MAX] {
                let trace = TraceId::new(u128::from(upper) << 64 | u128::from(place));
                assert_eq!(trace.is_within(share), expected, "{place:x} of {millionths}");
            }
        }

        check(1, 0, false);
        check(1, 1, true);
        check(u64::MAX, 1_000_000, true);
        check(u64::MAX, 999_999, false);
        check(u64::MAX / 2 - 1, 500_000, true);
        check(u64::MAX / 2 + 1, 500_000, false);
        let trace = |number: u64| TraceId::new(u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let tenth = Share::new(100_000).expect("a share");
        let sampled = (1..=10_000).filter(|number| trace(*number).is_within(tenth)).count();
        assert!((950..1050).contains(&sampled), "{sampled} of 10000");
    }

    #[test]
    fn no_id_is_nothing() {
        assert_ne!(TraceId::new(0).0, [0; 16]);
        assert_ne!(SpanId::new(0).0, [0; 8]);
    }
}
