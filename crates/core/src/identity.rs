//! Who a node is: a name, the address it is reached at, and which of its incarnations this is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{
    HOST_BYTES_MAX, INCARNATION_MAX, INCARNATION_ROOM, INCARNATION_ROOM_FIRST_HAND,
    LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, MESH_NAME_BYTES_MAX, NAME_BYTES_MAX,
};

/// The name of a node: 1 to 253 bytes, no control characters, no white space at either end. Cheap
/// to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// Why a text is no [`NodeName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a node's name is empty; give it one that is unique in the mesh")]
    Empty,
    /// It is too long.
    #[error("a node's name has {0} bytes; at most {NAME_BYTES_MAX} are allowed")]
    Long(usize),
    /// It has characters that would corrupt logs and metrics.
    #[error(
        "a node's name has control or invisible characters, or white space at an end; use letters, digits, dots and dashes"
    )]
    Characters,
}

/// Whether a character corrupts what shows it: control characters, line and paragraph separators,
/// characters without width, and those that change the direction of text (Unicode general
/// categories Cc, Cf, Zl and Zp, as far as they are in use).
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::Long(text.len()));
        }
        if text.trim().len() != text.len() || text.chars().any(is_invisible) {
            return Err(NameError::Characters);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a mesh. Bots of meshes with different names never join each other. Default: empty,
/// the mesh without a name. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshName(Option<Arc<str>>);

/// Why a text is no [`MeshName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mesh's name must have at most {MESH_NAME_BYTES_MAX} letters, digits, '-', '_' or '.'")]
pub struct MeshNameError;

impl MeshName {
    /// The name as text; empty for the mesh without a name.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromStr for MeshName {
    type Err = MeshNameError;

    fn from_str(text: &str) -> Result<Self, MeshNameError> {
        let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if text.len() > MESH_NAME_BYTES_MAX || !text.bytes().all(valid) {
            return Err(MeshNameError);
        }
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a node is dialled: a host name or IP address, and a port. Never a scheme, a path or a
/// socket file. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Lower-case host name, IPv4 address, or IPv6 address without brackets.
    host: Arc<str>,
    port: u16,
}

/// Why a text is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It names a scheme.
    #[error("a target has no scheme; write HOST:PORT")]
    Scheme,
    /// It has no port.
    #[error("a target needs a port; write HOST:PORT, or [ADDRESS]:PORT for IPv6")]
    PortMissing,
    /// Its port is not a number from 1 to 65535.
    #[error("a target's port must be a number from 1 to 65535")]
    Port,
    /// Its host is neither a host name nor an address.
    #[error("a target's host must be a host name, an IPv4 address or an IPv6 address in brackets")]
    Host,
}

impl Target {
    /// A target from its parts; IPv6 addresses with or without brackets.
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        if port == 0 {
            return Err(TargetError::Port);
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bare.is_some() || host.contains(':') {
            let address =
                bare.unwrap_or(host).parse::<Ipv6Addr>().map_err(|_| TargetError::Host)?;
            return Ok(Self { host: address.to_string().into(), port });
        }
        let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if host.is_empty()
            || host.len() > HOST_BYTES_MAX
            || !host.bytes().all(valid)
            || host.starts_with('.')
            || host.contains("..")
        {
            return Err(TargetError::Host);
        }
        Ok(Self { host: host.to_ascii_lowercase().into(), port })
    }

    /// Host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains("://") || text.starts_with("unix:") {
            return Err(TargetError::Scheme);
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::PortMissing)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(TargetError::PortMissing);
        }
        if port.is_empty() {
            return Err(TargetError::PortMissing);
        }
        if !port.bytes().all(|c| c.is_ascii_digit()) {
            return Err(TargetError::Port);
        }
        Self::new(host, port.parse().map_err(|_| TargetError::Port)?)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Free-form facts about a node, such as its zone. At most 16, keys of letters, digits, `_`, `-`,
/// `.` and `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// Why labels are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There are too many.
    #[error("a node has more than {LABELS_MAX} labels")]
    Many,
    /// A key is empty, too long or has other characters.
    #[error(
        "a label's key must have 1 to {LABEL_KEY_BYTES_MAX} letters, digits, '_', '-', '.' or '/'"
    )]
    Key,
    /// A value is too long or has control characters.
    #[error(
        "a label's value must have at most {LABEL_VALUE_BYTES_MAX} bytes and no control or invisible characters"
    )]
    Value,
}

impl Labels {
    /// Checks and collects labels; of two with one key the later wins.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, LabelError> {
        let mut map = BTreeMap::new();
        for (key, value) in labels {
            let valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b'/');
            if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX || !key.bytes().all(valid) {
                return Err(LabelError::Key);
            }
            if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(is_invisible) {
                return Err(LabelError::Value);
            }
            map.insert(key, value);
            if map.len() > LABELS_MAX {
                return Err(LabelError::Many);
            }
        }
        Ok(Self(map))
    }

    /// The labels by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// Orders the incarnations of a name: the start time in milliseconds since the Unix epoch, or one
/// more than any heard for the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The incarnation after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it is far beyond any clock: somebody inflated it.
    pub fn is_inflated(self) -> bool {
        self.0 > INCARNATION_MAX
    }

    /// Whether a record with it is believed: of a node that answered itself more than of one that
    /// others report, for a node that was lied about has to outdo the lie.
    pub fn is_believable(self, first_hand: bool) -> bool {
        let room = if first_hand { INCARNATION_ROOM_FIRST_HAND } else { INCARNATION_ROOM };
        self.0 <= INCARNATION_MAX + room
    }

    /// Whether a bot in incarnation `own` may take a larger one than this. An incarnation that
    /// peers would not accept is left alone: they would not accept the next one either.
    pub fn can_be_outdone_by(self, own: Self) -> bool {
        !self.is_inflated() || self <= own
    }
}

/// A random number that tells one incarnation of one process from every other: a restart from a
/// twin, the own address from a stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which mesh it belongs to.
    pub mesh: MeshName,
    /// What the node is called; unique in the mesh.
    pub name: NodeName,
    /// Where others dial it.
    pub target: Target,
    /// What else it says of itself.
    pub labels: Labels,
    /// Which incarnation of the name this is.
    pub incarnation: Incarnation,
    /// Which process this is.
    pub instance: Instance,
}

impl Record {
    /// Orders two incarnations of one name: the larger is the newer.
    pub fn succession(&self) -> (Incarnation, Instance) {
        (self.incarnation, self.instance)
    }

    /// Bytes on the wire, to within a few.
    pub(crate) fn packed_len(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len() + 6).sum();
        self.mesh.as_str().len() + self.name.as_str().len() + self.target.host().len() + labels + 38
    }
}
