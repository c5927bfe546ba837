//! The operator's listener: metrics, liveness, readiness.
