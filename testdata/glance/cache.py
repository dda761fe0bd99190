#!/usr/bin/python3
"""Works on a cache directory with Glance's own code.

    cache.py DRIVER DIR SOURCE

Reads a JSON list of steps from standard input and prints the list of their
results. SOURCE holds the images, each in a file named by its id. Glance comes
from the package python3-glance.
"""
import errno
import hashlib
import json
import logging
import os
import sys
import time

from oslo_concurrency import lockutils
from oslo_config import cfg

from glance.common import exception
from glance import image_cache

logging.disable(logging.CRITICAL)
driver, directory, source = sys.argv[1:]
CONF = cfg.CONF
CONF([], project='glance', default_config_files=[])
CONF.set_override('image_cache_driver', driver)
CONF.set_override('image_cache_dir', directory)
cache = image_cache.ImageCache()


def content(image_id):
    with open(os.path.join(source, image_id), 'rb') as f:
        return f.read()


def md5(data):
    return hashlib.md5(data).hexdigest()


def store(image_id):
    data = content(image_id)
    return cache.cache_image_iter(image_id, iter([data[:1000], data[1000:]]), md5(data))


def spoil(image_id):
    """Fails as a transfer with a wrong checksum does: into invalid/."""
    try:
        return cache.cache_image_iter(image_id, iter([content(image_id)]), md5(b''))
    except exception.GlanceException:
        return 'refused'


def die(image_id):
    """Ends the process in the middle of a transfer: into incomplete/."""
    with cache.driver.open_for_write(image_id) as f:
        data = content(image_id)
        f.write(data[:len(data) // 2])
        f.flush()
        print(json.dumps(results), flush=True)
        os._exit(0)


def read(image_id):
    """Whether the bytes are right; 'uncounted' when Glance then fails to count
    the hit, as its xattr driver does where the attribute is missing."""
    try:
        with cache.open_for_read(image_id) as f:
            right = f.read() == content(image_id)
    except OSError as e:
        return right and e.errno == errno.ENODATA and 'uncounted'
    return right


def queue(image_id):
    time.sleep(0.02)  # the time of a marker is its place
    return cache.queue_image(image_id)


def lock(name):
    with lockutils.lock(name, external=True):
        return True


def prune(size):
    CONF.set_override('image_cache_max_size', size)
    return cache.prune()


steps = {
    'driver': lambda: cache.driver_class.__module__.rsplit('.', 1)[1],
    'store': store, 'spoil': spoil, 'die': die, 'read': read, 'queue': queue, 'lock': lock, 'prune': prune,
    'cached': lambda i: cache.is_cached(i),
    'filling': lambda i: cache.driver.is_being_cached(i),
    'list': lambda: sorted(r['image_id'] for r in cache.get_cached_images()),
    'hits': lambda i: cache.get_hit_count(i),
    'records': lambda: sorted(cache.get_cached_images(), key=lambda r: r['image_id']),
    'size': lambda: cache.get_cache_size(),
    'queued': lambda: cache.get_queued_images(),
    'clean': lambda s: cache.clean(s),
    'delete': lambda i: cache.delete_cached_image(i),
    'delete_all': lambda: cache.delete_all_cached_images(),
}
results = []
for name, *arguments in json.load(sys.stdin):
    results.append(steps[name](*arguments))
print(json.dumps(results))
