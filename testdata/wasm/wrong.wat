;; Exports a function under the right name with the wrong type.
(module
  (memory (export "memory") 1)
  (func (export "imgcache_abi_version") (result i32) (i32.const 1))
  (func (export "imgcache_alloc") (param i32) (result i32) (i32.const 0))
  (func (export "imgcache_free") (param i32 i32))
  (func (export "imgcache_score") (param i32 i32) (result i64) (i64.const 0))
)
