{
  cached(lock, dir, steps):: [
    { type: 'restore_cache', keys: ['deps-{{ md5sum "%s" }}' % lock, 'deps-'], dest_dir: dir },
  ] + steps + [
    { type: 'save_cache', key: 'deps-{{ md5sum "%s" }}' % lock, contents: [{ source_dir: dir }] },
    { type: 'save_cache', key: 'deps-{{ year }}-{{ month }}-{{ day }}', contents: [{ source_dir: dir }] },
  ],
}
