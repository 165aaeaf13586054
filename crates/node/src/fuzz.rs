//! What a peer may send, for fuzzers and the tests that replay what they found.

/// A message of the mesh: its first byte chooses which. It is read as from a socket and given to a
/// core that has a member.
pub fn mesh_message(bytes: &[u8]) {
    crate::transport::foreign::mesh_message(bytes);
}

/// What a prober or the mesh port reads as a flight: it is written the same.
pub fn flight(bytes: &[u8]) {
    crate::transport::flight::foreign(bytes);
}
