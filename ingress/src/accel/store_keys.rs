//! The keys of one read of the feature store, kept as the command that asks for them.
//!
//! The bytes are those of features/online/reader.py. tests/gateway/models/test_store_keys.py compares
//! both.

use std::io::Write;

/// Keys in the form of a RESP array: each is `$length`, a line end, the key and a line end.
#[derive(Clone, Default)]
pub struct StoreKeys {
    encoded: Vec<u8>,
    /// Where each key begins and ends in `encoded`.
    spans: Vec<(usize, usize)>,
}

impl StoreKeys {
    /// Append a key in one piece.
    pub fn push(&mut self, key: &[u8]) {
        self.push_parts(&[key]);
    }

    /// Append a key that consists of parts.
    pub fn push_parts(&mut self, parts: &[&[u8]]) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        put_number(&mut self.encoded, b'$', bytes);
        let begin = self.encoded.len();
        parts.iter().for_each(|part| self.encoded.extend_from_slice(part));
        self.spans.push((begin, begin + bytes));
        self.encoded.extend_from_slice(b"\r\n");
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The key at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|(begin, end)| &self.encoded[*begin..*end])
    }

    /// The command that asks for all keys.
    pub fn mget(&self) -> Vec<u8> {
        let mut command = Vec::with_capacity(self.encoded.len() + 32);
        put_number(&mut command, b'*', self.len() + 1);
        command.extend_from_slice(b"$4\r\nMGET\r\n");
        command.extend_from_slice(&self.encoded);
        command
    }
}

/// Append a line of a sign and a number.
fn put_number(out: &mut Vec<u8>, sign: u8, number: usize) {
    out.push(sign);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_one_command() {
        let mut keys = StoreKeys::default();
        assert!(keys.is_empty());
        keys.push(b"a");
        keys.push_parts(&[b"{", b"b\r\n", b"}"]);
        assert_eq!(keys.mget(), b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$5\r\n{b\r\n}\r\n");
        assert_eq!((keys.len(), keys.get(1), keys.get(2)), (2, Some(&b"{b\r\n}"[..]), None));
    }
}
