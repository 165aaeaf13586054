//! How the connections of a node are secured: what travels with its row.

use std::borrow::Cow;

use crate::cell::{PackError, Reader, put_varint};

/// What a node saw at its latest handshake as a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// The protocol's version by its number on the wire (RFC 8446 section 4.2.1): 0x0304 is TLS
    /// 1.3.
    pub version: u16,
    /// The group of the key exchange by its number in IANA's registry of TLS supported groups; 0 if
    /// there was none.
    pub group: u16,
    /// When the node's own certificate expires, or, if it has none, the first to expire of those it
    /// was shown recently; Unix seconds.
    pub expires: u64,
}

impl Secured {
    /// As it travels: two little-endian numbers of 16 bits and a varint. A later release may add to
    /// the end.
    pub(crate) fn pack(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        out.extend(self.version.to_le_bytes());
        out.extend(self.group.to_le_bytes());
        put_varint(&mut out, self.expires);
        out
    }

    pub(crate) fn unpack(bytes: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader(bytes);
        Ok(Self { version: reader.u16()?, group: reader.u16()?, expires: reader.varint()? })
    }

    /// `TLSv1.3`, or the number in hexadecimal of a version without a name here.
    pub fn version_name(&self) -> Cow<'static, str> {
        match self.version {
            0x0303 => "TLSv1.2".into(),
            0x0304 => "TLSv1.3".into(),
            other => format!("0x{other:04x}").into(),
        }
    }

    /// The name of the group as IANA writes it, or its number in hexadecimal.
    pub fn group_name(&self) -> Cow<'static, str> {
        match self.group {
            0 => "none".into(),
            0x0017 => "secp256r1".into(),
            0x0018 => "secp384r1".into(),
            0x0019 => "secp521r1".into(),
            0x001d => "x25519".into(),
            0x001e => "x448".into(),
            0x0201 => "MLKEM768".into(),
            0x0202 => "MLKEM1024".into(),
            0x11eb => "SecP256r1MLKEM768".into(),
            0x11ec => "X25519MLKEM768".into(),
            other => format!("0x{other:04x}").into(),
        }
    }
}
