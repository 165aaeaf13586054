//! A hash that is equal on every bot, whatever the machine and the release.

use crate::identity::NodeName;

/// 64-bit FNV-1a with a final mix.
pub fn stable_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The weight of `chooser` for `chosen` in rendezvous hashing: equal on every bot, and as good as
/// random.
pub fn rendezvous(chooser: &NodeName, chosen: &NodeName) -> u64 {
    stable_hash(chooser.as_str().bytes().chain([0xff]).chain(chosen.as_str().bytes()))
}
