# The rules of a topology's shape: those of millrace/topology.py, in its words. tests/topologies holds a file that
# breaks each of them, which both must refuse.

locals {
  # What each cluster that knows its members by number allows.
  id_ranges   = { zookeeper = [1, 255], kafka = [0, 999] }
  index_range = [1, 254]

  # Key of a host => its type and what it looks like as JSON, which shows a type that HCL would convert.
  host_keys = {
    index    = { type = "int", json = "^-?[0-9]+$" }
    size     = { type = "str", json = "^\"" }
    rack     = { type = "str", json = "^\"" }
    ids      = { type = "dict", json = "^\\{" }
    services = { type = "list", json = "^\\[" }
  }

  # Faults of one stage make the next one's meaningless.
  faults = (
    length(local.faults_of_form) > 0 ? local.faults_of_form :
    length(local.faults_of_hosts) > 0 ? local.faults_of_hosts :
    local.faults_of_services
  )

  # yamldecode keeps the last of two equal keys without a word: host names, two spaces deep, are read from the text.
  written_names = flatten(regexall("(?m)^  ([A-Za-z0-9_-]+):", local.text))

  faults_of_form = tolist(concat(
    [
      for name in distinct(local.written_names) : "'${name}' is written twice"
      if length([for other in local.written_names : other if other == name]) > 1
    ],
    [
      for valid in [try(length(setsubtract(keys(local.file), ["replication_factor"])) == 2 && can(local.file.name) && can(local.file.hosts), false)] :
      "the file must hold the keys name and hosts, may hold replication_factor, and no other" if !valid
    ],
    [
      for valid in [try(length(keys(local.file.hosts)) > 0, false)] :
      "hosts: must map at least one host name to its description" if !valid && can(local.file.hosts)
    ],
    flatten([
      for name, host in try(local.file.hosts, {}) : [
        can(regex("^[a-z][a-z0-9-]{0,30}$", name)) ? [] : [
          "host '${name}': a name is a letter, then letters, digits and hyphens, all lower case"
        ],
        can(keys(host)) ? [] : ["host ${name}: must be a mapping with ${join(", ", keys(local.host_keys))}"],
        [for key in try(keys(host), []) : "host ${name}: unknown key '${key}'" if !can(local.host_keys[key])],
        [
          for key in keys(local.host_keys) : "host ${name}: ${key} is missing"
          if can(keys(host)) && key != "ids" && !can(host[key])
        ],
        [
          for key, form in local.host_keys : "host ${name}: ${key} must be of type ${form.type}, is ${jsonencode(host[key])}"
          if can(host[key]) && !can(regex(form.json, jsonencode(host[key])))
        ],
      ]
    ]),
  ))

  faults_of_hosts = tolist(concat(
    flatten([
      for name, host in local.hosts : [
        [
          for index in [host.index] : "host ${name}: index ${index} is outside ${join(" to ", local.index_range)}"
          if index < local.index_range[0] || index > local.index_range[1]
        ],
        [
          for size in [host.size] :
          "host ${name}: unknown size '${size}'; there are: ${join(", ", keys(local.catalogue.host_sizes))}"
          if !can(local.catalogue.host_sizes[size])
        ],
        [
          for service in distinct(host.services) :
          "host ${name}: unknown service '${service}'; there are: ${join(", ", keys(local.catalogue.services))}"
          if !can(local.catalogue.services[service])
        ],
        [
          for service, times in { for service in host.services : service => service... } :
          "host ${name}: service '${service}' is listed ${length(times)} times" if length(times) > 1
        ],
        [
          for cluster in keys(local.id_ranges) :
          "host ${name}: runs ${cluster} and has no id for it; add ids: {${cluster}: <number>}"
          if contains(host.services, cluster) && !can(host.ids[cluster])
        ],
        [
          for cluster, id in host.ids : "host ${name}: an id for '${cluster}', which has no ids"
          if !can(local.id_ranges[cluster])
        ],
        [
          for cluster, range in local.id_ranges :
          "host ${name}: ${cluster} id ${jsonencode(host.ids[cluster])} is outside ${join(" to ", range)}"
          if can(host.ids[cluster]) && !try(
            can(regex(local.host_keys.index.json, jsonencode(host.ids[cluster]))) &&
            host.ids[cluster] >= range[0] && host.ids[cluster] <= range[1], false
          )
        ],
      ]
    ]),
    flatten([
      for what, numbers in merge(
        { index = { for name, host in local.hosts : name => host.index } },
        {
          for cluster in keys(local.id_ranges) :
          "${cluster} id" => { for name, host in local.hosts : name => host.ids[cluster] if can(host.ids[cluster]) }
        },
        ) : [
        for number, owners in { for name, number in numbers : number => "host ${name}"... } :
        "${what} ${number} is used by ${join(" and ", owners)}; each needs its own" if length(owners) > 1
      ]
    ]),
  ))

  # Host => the ports that its services claim: bind address and number => service/port.
  claims = {
    for name, host in local.hosts : name => {
      for claim in flatten([
        for service in host.services : [
          for label, port in try(local.catalogue.services[service].ports, {}) : [
            for number in range(port.port, try(port.last, port.port) + 1) :
            { socket = "${port.bind} ${number}", number = number, owner = "${service}/${label}" }
          ]
        ]
      ]) : claim.socket => claim...
    }
  }

  faults_of_services = tolist(concat(
    flatten([
      for name, service in local.catalogue.services : [
        [
          for count in [length(local.members[name])] :
          "service ${name}: stands on ${count} hosts; exactly one is supported" if service.members == "one" && count > 1
        ],
        [
          for count in [length(local.members[name])] :
          "service ${name}: ${count} members; a quorum has an odd number, an even one survives no more"
          if service.members == "odd" && count > 0 && count % 2 == 0
        ],
        [
          for need in try(service.needs, []) : "service ${name}: needs ${need}, which no host runs"
          if length(local.members[name]) > 0 && length(local.members[need]) == 0
        ],
      ]
    ]),
    [for count in [length(local.members.depot)] : "service depot: no host runs it; every host installs from it" if count == 0],
    flatten([
      for name, claims in local.claims : [
        for claim in values(claims) :
        "host ${name}: port ${claim[0].number} is claimed by ${join(" and ", claim[*].owner)}" if length(claim) > 1
      ]
    ]),
    flatten([
      for name, host in local.hosts : [
        for need in [local.catalogue.host_reserve_mb + sum(concat([0], [for service in host.services : try(local.catalogue.services[service].memory_mb, 0)]))] :
        "host ${name}: its services need ${need} MiB, size ${host.size} has ${host.memory_mb} MiB; choose a larger size or move a service"
        if need > host.memory_mb
      ]
    ]),
    [
      for factor in try([local.file.replication_factor], []) :
      "replication_factor: must be a whole number above 0, is ${jsonencode(factor)}"
      if !can(regex("^[1-9][0-9]*$", jsonencode(factor)))
    ],
    [
      for service in ["kafka", "cassandra"] :
      "replication_factor: ${local.file.replication_factor} copies can't lie on the ${length(local.members[service])} host(s) of ${service}"
      if length(local.members[service]) > 0 && try(local.file.replication_factor > length(local.members[service]), false)
    ],
    [
      for stem in [trimsuffix(basename(var.topology), ".yml")] :
      "name: says '${local.file.name}', the file is called ${stem}.yml; make them equal" if try(local.file.name, "") != stem
    ],
  ))
}
