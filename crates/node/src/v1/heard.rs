//! What is heard from guests, on its way to the bridge.

use std::sync::Arc;

use canary_guests::Told;

/// What guests tell, and the place that a push takes.
pub(crate) type Heard = (Told, Option<Arc<Place>>);

/// What a push holds from its head until its samples are taken in.
pub(crate) type Place = canary_net::Charge;
