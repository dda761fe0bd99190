-- +goose Up
CREATE TABLE imgcache_nodes (
    node_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text COLLATE "C" NOT NULL UNIQUE,
    instance  text COLLATE "C" NOT NULL,
    epoch     bigint NOT NULL,
    url       text NOT NULL,
    seen      bigint NOT NULL,
    glance_id bigint UNIQUE
);
CREATE INDEX imgcache_nodes_seen ON imgcache_nodes (seen);
CREATE TABLE imgcache_images (
    node_id       bigint NOT NULL REFERENCES imgcache_nodes ON DELETE CASCADE,
    image_id      text COLLATE "C" NOT NULL,
    version       text COLLATE "C" NOT NULL,
    size          bigint NOT NULL,
    hits          bigint NOT NULL,
    last_accessed bigint NOT NULL,
    last_modified bigint NOT NULL,
    PRIMARY KEY (node_id, image_id)
);
CREATE INDEX imgcache_images_image ON imgcache_images (image_id);
CREATE TABLE imgcache_logs (
    node_id bigint NOT NULL REFERENCES imgcache_nodes ON DELETE CASCADE,
    source  text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    used    bigint NOT NULL,
    PRIMARY KEY (node_id, source)
);

-- +goose Down
DROP TABLE imgcache_logs;
DROP TABLE imgcache_images;
DROP TABLE imgcache_nodes;
