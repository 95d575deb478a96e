//! Clusters of real processes, whole and in pieces.

mod clusters {
    mod damage;
    mod doors;
    mod jobs;
}
