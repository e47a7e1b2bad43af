//! What becomes of directives that no other part carries over. A flat table, by what they are about.

use super::syntax::Directive;

/// What becomes of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::migrate) enum Fate {
    /// Another part carries it over, or has spoken of it.
    Elsewhere,
    /// It tunes what does not exist here, or says what is always so: nothing is lost.
    Meaningless,
    /// Nothing stands for it; who does it instead.
    Lost(&'static str),
}

/// Looks a directive up, and where need be its arguments.
pub(in crate::migrate) fn fate(directive: &Directive) -> Fate {
    let (name, first) = (directive.name.as_str(), directive.first());
    let is_upgrade_map = name == "map" && ["$http_upgrade", "$http_connection"].contains(&first);
    match name {
        "map" if is_upgrade_map => return Fate::Meaningless,
        "access_log" if first == "off" => return Fate::Elsewhere,
        "proxy_cache"
        | "gzip"
        | "auth_basic"
        | "proxy_intercept_errors"
        | "brotli"
        | "auth_request"
        | "proxy_redirect"
        | "proxy_next_upstream"
        | "expires"
            if ["off", "default"].contains(&first) =>
        {
            return Fate::Meaningless;
        }
        "add_header" if first.eq_ignore_ascii_case("X-Accel-Buffering") => return Fate::Meaningless,
        "allow" if first == "all" => return Fate::Meaningless,
        _ => {}
    }
    let row = FATES.iter().find(|(names, _)| names.split_ascii_whitespace().any(|it| it == name));
    match row {
        Some((_, fate)) => *fate,
        None if name.ends_with("_by_lua_block") || name.ends_with("_by_lua_file") || name.starts_with("lua_") => {
            Fate::Lost("nothing is programmed here; keep nginx in front, or do it in the servers")
        }
        None if name.starts_with("fastcgi_") || name.starts_with("uwsgi_") || name.starts_with("scgi_") => {
            Fate::Lost("servers are spoken to in HTTP only")
        }
        None => Fate::Lost("there is nothing like it here"),
    }
}

/// Whether a directive is known, and has no block: one with a block lacks its semicolon.
pub(in crate::migrate) fn is_without_block(name: &str) -> bool {
    let is_known = FATES.iter().any(|(names, _)| names.split_ascii_whitespace().any(|it| it == name));
    is_known && !BLOCKS.contains(&name)
}

/// Those that may have a block.
const BLOCKS: [&str; 16] = [
    "http",
    "events",
    "server",
    "upstream",
    "location",
    "types",
    "match",
    "stream",
    "mail",
    "if",
    "limit_except",
    "map",
    "geo",
    "split_clients",
    "charset_map",
    "geoip2",
];

const FILES: Fate = Fate::Lost("files are not served here; keep nginx or a CDN for them");
const REWRITES: Fate =
    Fate::Lost("paths and answers are not rewritten here; keep nginx in front, or do it in the servers");
const GUARDS: Fate = Fate::Lost("NOBODY IS KEPT OUT HERE: keep nginx in front for it, or do it in the servers");
const CACHES: Fate = Fate::Lost("nothing is cached here; keep nginx or a CDN for it");
const COMPRESSES: Fate = Fate::Lost("nothing is compressed here; let the servers or a CDN do it");
const FIELDS: Fate = Fate::Lost("fields are passed on as they are; set them in the servers");
const LOGS: Fate = Fate::Lost("logs go to standard output (access, JSON) and standard error; see access_log");
const CIPHERS: Fate =
    Fate::Lost("TLS 1.2 and 1.3 with the ciphers of rustls, of which none is weak; there is no choice");
const RETRIES: Fate =
    Fate::Lost("the next server is tried when a connection cannot be made, and never once a request has been sent");

/// Names and their fate.
const FATES: &[(&str, Fate)] = &[
    (
        "http events server upstream location listen server_name default_type types \
         worker_processes set_real_ip_from real_ip_header real_ip_recursive large_client_header_buffers \
         ssl_certificate ssl_certificate_key ssl_client_certificate ssl_verify_client ssl_protocols http2 \
         proxy_pass proxy_set_header proxy_connect_timeout proxy_read_timeout proxy_send_timeout send_timeout \
         client_header_timeout client_body_timeout keepalive_timeout limit_conn limit_conn_zone health_check match \
         proxy_ssl_verify proxy_ssl_trusted_certificate proxy_ssl_name proxy_ssl_server_name proxy_ssl_certificate \
         proxy_ssl_certificate_key resolver set stream mail",
        Fate::Elsewhere,
    ),
    (
        "user pid daemon master_process worker_connections worker_rlimit_nofile worker_cpu_affinity worker_priority \
         worker_shutdown_timeout worker_aio_requests thread_pool use multi_accept accept_mutex load_module pcre_jit \
         lock_file env sendfile sendfile_max_chunk tcp_nopush tcp_nodelay aio directio output_buffers types_hash_max_size \
         types_hash_bucket_size server_names_hash_max_size server_names_hash_bucket_size variables_hash_max_size \
         variables_hash_bucket_size map_hash_max_size map_hash_bucket_size proxy_headers_hash_max_size \
         proxy_headers_hash_bucket_size server_tokens charset charset_types ignore_invalid_headers underscores_in_headers \
         merge_slashes reset_timedout_connection keepalive_requests keepalive_time keepalive_disable keepalive_min_timeout \
         client_body_buffer_size client_header_buffer_size client_body_temp_path client_body_in_file_only connection_pool_size \
         request_pool_size proxy_temp_path fastcgi_temp_path uwsgi_temp_path scgi_temp_path proxy_http_version proxy_buffering \
         proxy_request_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size proxy_max_temp_file_size \
         proxy_temp_file_write_size proxy_ignore_headers proxy_pass_request_headers proxy_pass_request_body proxy_socket_keepalive \
         proxy_pass_header proxy_ignore_client_abort chunked_transfer_encoding lingering_close lingering_time lingering_timeout \
         postpone_output resolver_timeout open_file_cache open_file_cache_valid open_file_cache_min_uses open_file_cache_errors \
         log_not_found log_subrequest rewrite_log uninitialized_variable_warn port_in_redirect absolute_redirect \
         server_name_in_redirect gzip_types gzip_vary gzip_proxied gzip_comp_level gzip_min_length gzip_buffers \
         gzip_http_version gzip_disable gzip_static brotli_types brotli_comp_level brotli_static brotli_min_length \
         ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_session_ticket_key ssl_dhparam ssl_buffer_size \
         ssl_prefer_server_ciphers ssl_early_data ssl_verify_depth proxy_ssl_session_reuse proxy_ssl_protocols \
         proxy_ssl_verify_depth http2_max_concurrent_streams http2_idle_timeout http2_recv_timeout http2_push_preload \
         http2_chunk_size http2_max_requests http2_max_field_size http2_max_header_size http3 http3_hq quic_retry \
         limit_req_status limit_conn_status limit_req_log_level limit_conn_log_level \
         limit_req_dry_run limit_conn_dry_run log_format etag auth_basic_user_file proxy_cache_path proxy_cache_key \
         proxy_cache_valid proxy_cache_bypass proxy_no_cache proxy_cache_use_stale proxy_cache_lock proxy_cache_methods \
         proxy_cache_min_uses proxy_cache_revalidate proxy_cache_background_update proxy_cache_lock_timeout \
         proxy_next_upstream_tries proxy_next_upstream_timeout satisfy stub_status js_import js_path js_set perl_modules \
         perl_require lua_package_path lua_shared_dict geoip2 internal autoindex index",
        Fate::Meaningless,
    ),
    ("root alias try_files autoindex_format random_index mp4 flv dav_methods create_full_put_path", FILES),
    (
        "rewrite return if error_page sub_filter sub_filter_once sub_filter_types break proxy_redirect \
         proxy_cookie_path proxy_cookie_domain proxy_cookie_flags proxy_method proxy_set_body proxy_intercept_errors \
         recursive_error_pages addition_types add_before_body add_after_body mirror ssi slice image_filter xslt_stylesheet",
        REWRITES,
    ),
    (
        "auth_basic auth_request auth_request_set auth_jwt auth_jwt_key_file allow deny valid_referers secure_link \
         secure_link_md5 modsecurity modsecurity_rules modsecurity_rules_file limit_except referer_hash_max_size",
        GUARDS,
    ),
    ("proxy_cache proxy_store fastcgi_cache memcached_pass", CACHES),
    ("gzip brotli gunzip zstd", COMPRESSES),
    (
        "add_header add_trailer proxy_hide_header more_set_headers more_clear_headers expires more_set_input_headers",
        FIELDS,
    ),
    ("access_log error_log open_log_file_cache", LOGS),
    ("ssl_ciphers ssl_ecdh_curve ssl_conf_command proxy_ssl_ciphers", CIPHERS),
    ("proxy_next_upstream", RETRIES),
    (
        "ssl_stapling ssl_stapling_verify ssl_stapling_file ssl_stapling_responder",
        Fate::Lost("certificates are not stapled here"),
    ),
    ("ssl_trusted_certificate ssl_crl ssl_ocsp", Fate::Lost("revoked certificates are not looked for here")),
    ("ssl_password_file", Fate::Lost("keys are not encrypted here; write the key decrypted to a file of its own")),
    ("ssl_reject_handshake", Fate::Lost("who asks for a name without a certificate gets the first one here")),
    ("proxy_ssl_crl", Fate::Lost("revoked certificates are not looked for here")),
    ("ssl", Fate::Lost("it was dropped from nginx itself; a listener has tls here")),
    (
        "limit_req limit_req_zone",
        Fate::Lost(
            "requests are not limited here; upstreams.NAME.limits paces those who come to stay, limits.per_client their number",
        ),
    ),
    (
        "limit_rate limit_rate_after proxy_limit_rate proxy_bind",
        Fate::Lost("no connection is slowed down or bound here"),
    ),
    (
        "client_max_body_size",
        Fate::Lost("bodies are passed on as they come, of any length; let the servers limit them"),
    ),
    ("map geo split_clients userid geoip_country js_content", Fate::Lost("there are no variables here")),
    ("fastcgi_pass uwsgi_pass scgi_pass grpc_pass perl", Fate::Lost("servers are spoken to in HTTP only")),
    (
        "grpc_set_header grpc_read_timeout grpc_send_timeout grpc_ssl_verify",
        Fate::Lost("servers are spoken to in HTTP/1.1 only"),
    ),
    (
        "push_stream_channels_path push_stream_subscriber push_stream_publisher nchan_subscriber nchan_publisher nchan_pubsub",
        Fate::Lost("nothing is published here; let a server do it, and proxy it"),
    ),
];
