//! Plans leave and come back, and the picture shows what the timeline says.
