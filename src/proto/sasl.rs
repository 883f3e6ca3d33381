//! SASL exchanges shared by the line protocols: PLAIN (RFC 4616) and LOGIN.
