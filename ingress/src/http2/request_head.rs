//! Rules of HTTP/2 on a request's fields and length (RFC 9113, section 8).
//!
//! A request that breaks one is malformed: its stream is reset, and the other streams go on. nghttp2
//! has these rules too, but it ends the connection, on which a proxy has the calls of many people.

use crate::sys::nghttp2::{is_authority, is_field_name, is_field_value, is_path};

/// The request is malformed.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const PATH: u8 = 4;
const AUTHORITY: u8 = 8;
const REGULAR: u8 = 16;
const REQUIRED: u8 = METHOD | SCHEME | PATH;

/// Fields that are about one connection of HTTP/1.
const CONNECTION_FIELDS: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// What was seen of a request so far.
#[derive(Default)]
pub struct RequestHead {
    seen: u8,
    content_length: Option<u64>,
    body_bytes: u64,
}

impl RequestHead {
    /// Check a field of the header block. Over a Unix socket the authority may be any text: some
    /// clients send the socket's path.
    pub fn field(
        &mut self,
        name: &[u8],
        value: &[u8],
        any_authority: bool,
    ) -> Result<(), Malformed> {
        if name.first() != Some(&b':') {
            self.seen |= REGULAR;
            return self.regular(name, value);
        }
        let (pseudo, valid) = match name {
            b":method" => (METHOD, is_word(value)),
            b":scheme" => (SCHEME, is_word(value)),
            b":path" => (PATH, is_path(value)),
            b":authority" => (AUTHORITY, any_authority || is_authority(value)),
            _ => return Err(Malformed),
        };
        let twice_or_late = self.seen & (pseudo | REGULAR) != 0;
        self.seen |= pseudo;
        if valid && !twice_or_late {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        check_field(name, value)?;
        match name {
            b"te" if !value.trim_ascii().eq_ignore_ascii_case(b"trailers") => Err(Malformed),
            b"content-length" => {
                let text = std::str::from_utf8(value.trim_ascii()).map_err(|_| Malformed)?;
                let length = text.parse().map_err(|_| Malformed)?;
                let twice = self.content_length.replace(length).is_some();
                if twice {
                    Err(Malformed)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Check the header block as a whole, at its end.
    pub fn end_of_fields(&self) -> Result<(), Malformed> {
        if self.seen & REQUIRED == REQUIRED {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Check that the bytes of a DATA frame fit the announced length.
    pub fn body(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.body_bytes += bytes as u64;
        match self.content_length {
            Some(length) if self.body_bytes > length => Err(Malformed),
            _ => Ok(()),
        }
    }

    /// Check that the body has the announced length, at its end.
    pub fn end_of_body(&self) -> Result<(), Malformed> {
        match self.content_length {
            Some(length) if self.body_bytes != length => Err(Malformed),
            _ => Ok(()),
        }
    }
}

fn is_word(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_graphic)
}

/// Check a field of the trailers, which have no pseudo-fields.
pub fn check_field(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let malformed = !is_field_name(name)
        || name.first() == Some(&b':')
        || !is_field_value(value.trim_ascii())
        || CONNECTION_FIELDS.contains(&name);
    if malformed {
        Err(Malformed)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Field = (&'static str, &'static str);
    const GOOD: [Field; 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/turnout.v1.Predictor/Predict"),
        (":authority", "host:8500"),
        ("te", " trailers "),
    ];

    fn check(fields: &[Field]) -> Result<(), Malformed> {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            head.field(name.as_bytes(), value.as_bytes(), false)?;
        }
        head.end_of_fields()
    }

    #[test]
    fn request_head_takes_good_requests() {
        assert_eq!(check(&GOOD), Ok(()));
        assert_eq!(check(&GOOD[..3]), Ok(()));
    }

    #[test]
    fn request_head_refuses_fields_that_are_wrong_missing_late_or_twice() {
        let wrong: [Field; 15] = [
            ("Upper-Case", "a"),
            ("", "a"),
            ("a b", "c"),
            ("a", "b\nc"),
            ("a", "b\0"),
            ("te", "gzip"),
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "-1"),
            (":status", "200"),
            (":unknown", "a"),
            (":path", "/twice"),
            (":authority", "late"),
            ("keep-alive", "1"),
        ];
        for field in wrong {
            let mut fields = GOOD.to_vec();
            fields.push(field);
            assert_eq!(check(&fields), Err(Malformed), "{field:?}");
        }
        for missing in &GOOD[..3] {
            let fields: Vec<Field> =
                GOOD.iter().copied().filter(|field| field != missing).collect();
            assert_eq!(check(&fields), Err(Malformed), "without {missing:?}");
        }
        for (name, value) in [(":path", ""), (":authority", "user@host"), (":scheme", "")] {
            let fields: Vec<Field> = GOOD
                .iter()
                .map(|field| if field.0 == name { (name, value) } else { *field })
                .collect();
            assert_eq!(check(&fields), Err(Malformed), "{name} {value:?}");
        }
    }

    #[test]
    fn request_head_takes_any_authority_where_it_means_nothing() {
        let mut head = RequestHead::default();
        assert_eq!(head.field(b":authority", b"/run/worker-0.sock", true), Ok(()));
    }

    #[test]
    fn request_head_compares_the_body_with_its_announced_length() {
        let announced = |length: &str| {
            let mut head = RequestHead::default();
            head.field(b"content-length", length.as_bytes(), false).unwrap();
            head
        };
        let mut head = announced("3");
        assert_eq!(head.body(2), Ok(()));
        assert_eq!(head.end_of_body(), Err(Malformed));
        assert_eq!(head.body(1), Ok(()));
        assert_eq!(head.end_of_body(), Ok(()));
        assert_eq!(head.body(1), Err(Malformed));
        let mut unannounced = RequestHead::default();
        assert_eq!(unannounced.body(7), Ok(()));
        assert_eq!(unannounced.end_of_body(), Ok(()));
    }
}
