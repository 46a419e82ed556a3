//! Asking over the network, from a host: what every such question needs, and a file for each kind.

pub(crate) mod asker;
pub(crate) mod clients;
pub(crate) mod dns;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod io_error;
pub(crate) mod kept;
pub(crate) mod led;
pub(crate) mod mysql;
pub(crate) mod mysql_login;
pub(crate) mod perfdata;
pub(crate) mod ping;
pub(crate) mod pinned;
pub(crate) mod places;
pub(crate) mod plugin;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod sql;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod trust;
pub(crate) mod unchecked;
