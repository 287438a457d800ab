//! Reads the feature store's replies to MGET, as their bytes come from the socket.
//!
//! A reply is an array of bulk strings of the Redis protocol, of which some are null.

use std::ops::Range;

/// A larger value is an error, as it is for features/online/reader.py.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// No line of an array of bulk strings is longer: a sign, a number and the line end.
const LINE_BYTES_MAX: usize = 32;
/// While the buffer holds fewer bytes, bytes that were read stay in it.
const READ_BYTES_KEPT: usize = 256 << 10;

/// Why bytes are no reply to a command.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The store refused the command.
    Refused,
    /// The bytes are no array of as many bulk strings as there are keys, or a value is too large.
    Unexpected,
}

/// The bytes that came, and how far they were read.
#[derive(Default)]
pub struct MgetReplies {
    bytes: Vec<u8>,
    /// Where the next element begins.
    at: usize,
    /// The elements that are complete. None: the array has not begun.
    values: Option<Vec<Option<Range<usize>>>>,
}

impl MgetReplies {
    /// Take bytes from the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a reply has begun and is not finished.
    pub fn has_bytes(&self) -> bool {
        self.at < self.bytes.len() || self.values.is_some()
    }

    /// Read on. True: the reply to a command with `keys` keys is complete.
    pub fn read(&mut self, keys: usize) -> Result<bool, ReplyError> {
        // The array.
        if self.values.is_none() {
            let Some((count, next)) = self.number(b'*')? else {
                return Ok(false);
            };
            if usize::try_from(count) != Ok(keys) {
                return Err(ReplyError::Unexpected);
            }
            (self.values, self.at) = (Some(Vec::with_capacity(keys)), next);
        }
        // Its elements.
        while self.values.as_ref().is_some_and(|values| values.len() < keys) {
            let Some((length, next)) = self.number(b'$')? else {
                return Ok(false);
            };
            let (value, end) = match usize::try_from(length) {
                Err(_) => (None, next),
                Ok(length) if length > VALUE_BYTES_MAX => return Err(ReplyError::Unexpected),
                Ok(length) => (Some(next..next + length), next + length + 2),
            };
            if end > self.bytes.len() {
                return Ok(false);
            }
            self.at = end;
            self.values.get_or_insert_default().push(value);
        }
        Ok(true)
    }

    /// The values of the reply that is complete.
    pub fn values(&self) -> Vec<Option<&[u8]>> {
        let ranges = self.values.iter().flatten();
        ranges.map(|range| range.clone().map(|range| &self.bytes[range])).collect()
    }

    /// Forget the reply that is complete.
    pub fn finish(&mut self) {
        self.values = None;
        if self.at == self.bytes.len() || self.at >= READ_BYTES_KEPT {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }

    /// The number in the line at `at`, which begins with `sign`, and where the next line begins. None: the
    /// line is not complete.
    fn number(&self, sign: u8) -> Result<Option<(i64, usize)>, ReplyError> {
        let rest = &self.bytes[self.at..];
        match rest.first() {
            None => return Ok(None),
            Some(b'-') => return Err(ReplyError::Refused),
            Some(first) if *first != sign => return Err(ReplyError::Unexpected),
            Some(_) => {}
        }
        let line = &rest[..rest.len().min(LINE_BYTES_MAX)];
        let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
            let whole = rest.len() >= LINE_BYTES_MAX;
            return if whole { Err(ReplyError::Unexpected) } else { Ok(None) };
        };
        let number = std::str::from_utf8(&line[1..end]).ok().and_then(|text| text.parse().ok());
        number.map(|number| Some((number, self.at + end + 2))).ok_or(ReplyError::Unexpected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[u8] = b"*3\r\n$2\r\nab\r\n$-1\r\n$0\r\n\r\n*1\r\n$4\r\n\r\n\r\n\r\n";

    #[test]
    fn mget_replies_are_the_same_however_their_bytes_come() {
        for size in 1..=REPLIES.len() {
            let (mut replies, mut found) = (MgetReplies::default(), Vec::new());
            let keys = [3, 1];
            for bytes in REPLIES.chunks(size) {
                replies.push(bytes);
                while found.len() < 2 && replies.read(keys[found.len()]).expect("a reply") {
                    let owned: Vec<Option<Vec<u8>>> =
                        replies.values().iter().map(|v| v.map(<[u8]>::to_vec)).collect();
                    found.push(owned);
                    replies.finish();
                }
            }
            let first: Vec<_> = vec![Some(b"ab".to_vec()), None, Some(Vec::new())];
            assert_eq!(found, [first, vec![Some(b"\r\n\r\n".to_vec())]]);
            assert!(!replies.has_bytes());
        }
    }

    #[test]
    fn mget_replies_refuse_everything_else() {
        let read = |bytes: &[u8], keys| {
            let mut replies = MgetReplies::default();
            replies.push(bytes);
            replies.read(keys)
        };
        assert_eq!(read(b"-LOADING Redis is loading\r\n", 1), Err(ReplyError::Refused));
        let long = [b"*".to_vec(), vec![b'1'; LINE_BYTES_MAX]].concat();
        for bytes in [
            b"*2\r\n$-1\r\n$-1\r\n",
            &b"+OK\r\n"[..],
            b"*1\r\n:1\r\n",
            b"*1\r\n$1048577\r\n",
            b"*x\r\n",
            &long[..],
        ] {
            assert_eq!(read(bytes, 1), Err(ReplyError::Unexpected), "{bytes:?}");
        }
        assert_eq!(read(b"*-1\r\n", 1), Err(ReplyError::Unexpected));
        assert_eq!(read(b"", 1), Ok(false));
    }
}
