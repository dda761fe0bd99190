-- +goose Up
CREATE TABLE imgcache_nodes (
    node_id   bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name      varbinary(255) NOT NULL UNIQUE,
    instance  varbinary(64) NOT NULL,
    epoch     bigint NOT NULL,
    url       varbinary(2048) NOT NULL,
    seen      bigint NOT NULL,
    glance_id bigint UNIQUE,
    INDEX imgcache_nodes_seen (seen)
) ENGINE=InnoDB;
CREATE TABLE imgcache_images (
    node_id       bigint NOT NULL,
    image_id      varbinary(128) NOT NULL,
    version       mediumblob NOT NULL,
    size          bigint NOT NULL,
    hits          bigint NOT NULL,
    last_accessed bigint NOT NULL,
    last_modified bigint NOT NULL,
    PRIMARY KEY (node_id, image_id),
    INDEX imgcache_images_image (image_id),
    FOREIGN KEY (node_id) REFERENCES imgcache_nodes (node_id) ON DELETE CASCADE
) ENGINE=InnoDB;
CREATE TABLE imgcache_logs (
    node_id bigint NOT NULL,
    source  varbinary(255) NOT NULL,
    seq     bigint NOT NULL,
    used    bigint NOT NULL,
    PRIMARY KEY (node_id, source),
    FOREIGN KEY (node_id) REFERENCES imgcache_nodes (node_id) ON DELETE CASCADE
) ENGINE=InnoDB;

-- +goose Down
DROP TABLE imgcache_logs;
DROP TABLE imgcache_images;
DROP TABLE imgcache_nodes;
