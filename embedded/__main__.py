from embedded.run import main

main()
